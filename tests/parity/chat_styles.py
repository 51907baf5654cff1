"""Chat templates for fuzz_templates.py: our own, each built the way a family of public models builds its own, and
conversations of every shape to render with them. TEMPLATES is a list, conversations() gives the variables.
"""
import re

# A default system prompt with the date, tools as JSON in the system block or the first user turn, calls as
# {"name", "parameters"}; one of the long ones.
TOOL_HEADERS = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined and false %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message comes out of the list, so that it can go in the right place. #}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | string | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|head|>system<|end_head|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: python\\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n" }}
{%- endif %}
{{- "Knowledge until: December 2023\\nToday: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "You have these functions. Answer with JSON for a call.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|end_turn|>" }}

{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content'] | string | trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("There is no first user message to put tools in!") }}
    {%- endif %}
    {{- '<|head|>user<|end_head|>\\n\\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) ~ "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|end_turn|>" }}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|end_head|>\\n\\n' + message['content'] | trim + '<|end_turn|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("One call at a time, not " ~ message.tool_calls | length) }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- '<|head|>assistant<|end_head|>\\n\\n' -}}
            {{- "<|py|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' ~ arg_val ~ '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
                {%- endfor %}
            {{- ")" }}
        {%- else  %}
            {{- '<|head|>assistant<|end_head|>\\n\\n' -}}
            {{- '{"name": "' + tool_call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {{- "<|end_message|>" if builtin_tools is defined else "<|end_turn|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|head|>ipython<|end_head|>\\n\\n" }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|end_turn|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|end_head|>\\n\\n' }}
{%- endif %}
"""

# Thinking models: the last query is found from behind, earlier thoughts are cut, tool results are gathered in one user turn.
THINKING = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nSignatures inside <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nAnswer a call so:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

# Instruct brackets: system text in the last user turn, strict alternation counted by a namespace, ids of nine characters.
BRACKETS = """{%- if messages and messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS][" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "tool_calls" or message.tool_calls is defined %}
        {%- if message.tool_calls is defined %}{%- set tool_calls = message.tool_calls %}{%- else %}{%- set tool_calls = message.content %}{%- endif %}
        {{- "[CALLS][" }}
        {%- for tool_call in tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {{- ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[RESULTS]{"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id|default('none') + '"}[/RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""

# Turns with images: content is text or a list of parts, the system text goes into the first user turn.
TURNS = """{{ bos_token }}
{%- if messages and messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '</turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<turn>model\\n'}}
{%- endif -%}
"""

# Macros throughout: a TypeScript view of the tools, channels, effort.
CHANNELS = """{#- macros first -#}
{%- macro render_type(spec, required_params, depth=0) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}
            {%- if spec['items']['type'] in ["string", "number", "integer", "boolean"] -%}
                {{- {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}[spec['items']['type']] ~ "[]" }}
            {%- else -%}
                {%- set inner_type = render_type(spec['items'], required_params, depth + 1) -%}
                {%- if inner_type == "object | object" or inner_type|length > 50 -%}{{- "any[]" }}{%- else -%}{{- inner_type + "[]" }}{%- endif -%}
            {%- endif -%}
            {%- if spec.nullable -%}{{- " | null" }}{%- endif -%}
        {%- else -%}{{- "any[]" }}{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}
        {%- if spec.type | length > 1 -%}{{- spec.type | join(" | ") }}{%- else -%}{{- spec.type[0] }}{%- endif -%}
    {%- elif spec.oneOf -%}
        {%- for variant in spec.oneOf -%}
            {{- render_type(variant, required_params) -}}
            {%- if variant.description %}{{- "// " + variant.description }}{%- endif -%}
            {%- if variant.default is defined %}{{ "// default: " + variant.default|tojson }}{%- endif -%}
            {%- if not loop.last %}{{- " | " }}{% endif -%}
        {%- endfor -%}
    {%- elif spec.type == "string" -%}
        {%- if spec.enum -%}{{- '"' + spec.enum|join('" | "') + '"' -}}{%- else -%}{{- "string" }}{%- if spec.nullable %}{{- " | null" }}{%- endif -%}{%- endif -%}
    {%- elif spec.type == "object" -%}
        {%- if spec.properties -%}
            {{- "{\\n" }}
            {%- for prop_name, prop_spec in spec.properties.items() -%}
                {{- prop_name -}}
                {%- if prop_name not in (spec.required or []) -%}{{- "?" }}{%- endif -%}
                {{- ": " }}{{ render_type(prop_spec, spec.required or [], depth=depth + 1) }}
                {%- if not loop.last -%}{{- ", " }}{%- endif -%}
            {%- endfor -%}
            {{- "}" }}
        {%- else -%}{{- "object" }}{%- endif -%}
    {%- else -%}{{- spec.type | default("any", true) }}{%- endif -%}
{%- endmacro -%}
{%- macro render_namespace(namespace_name, tools) -%}
    {{- "## " + namespace_name + "\\n\\nnamespace " + namespace_name + " {\\n\\n" }}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- "// " + tool.description|default("(none)") + "\\ntype "+ tool.name + " = " }}
        {%- if tool.parameters and tool.parameters.properties %}
            {{- "(_: {\\n" }}
            {%- for param_name, param_spec in tool.parameters.properties.items() %}
                {%- if param_spec.description %}{{- "// " + param_spec.description + "\\n" }}{%- endif %}
                {{- param_name }}
                {%- if param_name not in (tool.parameters.required or []) -%}{{- "?" }}{%- endif -%}
                {{- ": " }}
                {{- render_type(param_spec, tool.parameters.required or []) }}
                {%- if param_spec.default is defined -%}
                    {%- if param_spec.enum %}{{- ", // default: " + param_spec.default }}
                    {%- elif param_spec.oneOf %}{{- "// default: " + param_spec.default }}
                    {%- else %}{{- ", // default: " + param_spec.default|tojson }}{%- endif -%}
                {%- endif -%}
                {%- if not loop.last %}{{- ",\\n" }}{%- else %}{{- ",\\n" }}{%- endif -%}
            {%- endfor %}
            {{- "}) => any;\\n\\n" }}
        {%- else -%}{{- "() => any;\\n\\n" }}{%- endif -%}
    {%- endfor %}
    {{- "} // namespace " + namespace_name }}
{%- endmacro -%}
{%- macro system_block() -%}
    {%- if model_identity is not defined %}{%- set model_identity = "You are a model." %}{%- endif %}
    {{- model_identity + "\\nToday: " + (date_string if date_string is defined else "2024-01-01") + "\\n\\n" }}
    {%- if reasoning_effort is not defined %}{%- set reasoning_effort = "medium" %}{%- endif %}
    {{- "Reasoning: " + reasoning_effort + "\\n\\n" }}
    {{- "# Channels: analysis, commentary, final." }}
    {%- if tools -%}{{- "\\nCalls go to the commentary channel: 'functions'." }}{%- endif -%}
{%- endmacro -%}
{{- "<|start|>system<|message|>" }}{{ system_block() }}{{ "<|end|>" }}
{%- if messages and messages[0].role in ["developer", "system"] %}
    {%- set developer_message = messages[0].content %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set developer_message = "" %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if developer_message or tools %}
    {{- "<|start|>developer<|message|>" }}
    {%- if developer_message %}{{- "# Instructions\\n\\n" ~ developer_message ~ "\\n\\n" }}{%- endif %}
    {%- if tools -%}{{- "# Tools\\n\\n" }}{{- render_namespace("functions", tools) }}{%- endif -%}
    {{- "<|end|>" }}
{%- endif %}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in loop_messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "content" in message and message.content is string %}
            {%- if "<|channel|>" in message.content %}{{- raise_exception("There is a channel in the content") }}{%- endif %}
        {%- endif %}
        {%- if "tool_calls" in message %}
            {%- set future_final_message = namespace(found=false) %}
            {%- for future_message in loop_messages[loop.index:] %}
                {%- if future_message.role == 'assistant' and "tool_calls" not in future_message %}{%- set future_final_message.found = true %}{%- endif %}
            {%- endfor %}
            {%- set tool_call = message.tool_calls[0] %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {%- if message.content and message.thinking %}
                {{- raise_exception("Content and thinking at once") }}
            {%- elif message.content and not future_final_message.found %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" ~ message.content ~ "<|end|>" }}
            {%- elif message.thinking and not future_final_message.found %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant to=functions." + tool_call.name + "<|channel|>commentary " }}
            {{- (tool_call.content_type if tool_call.content_type is defined else "json") + "<|message|>" }}
            {{- tool_call.arguments|tojson }}{{- "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {%- if "thinking" in message %}{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}{%- endif %}
            {{- "<|start|>assistant<|channel|>final<|message|>" ~ message.content ~ "<|return|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" ~ message.content ~ "<|end|>" }}
            {%- set last_tool_call.name = none %}
        {%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}{{- raise_exception("A tool answers, and nobody called it!") }}{%- endif %}
        {{- "<|start|>functions." + last_tool_call.name }}{{- " to=assistant<|channel|>commentary<|message|>" + message.content|tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}
        {{- "<|start|>user<|message|>" ~ message.content ~ "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}"""

# Generation blocks around what an assistant says, XML tools, modes chosen by flags in the system text.
GENERATION = """{%- set enable_thinking = enable_thinking if enable_thinking is defined else true -%}
{%- set ns = namespace(mode='/think' if enable_thinking else '/no_think', custom='') -%}
{%- if messages and messages[0].role == "system" -%}
  {%- set system_message = messages[0].content | string -%}
  {%- if "/no_think" in system_message -%}{%- set ns.mode = "/no_think" -%}{%- elif "/think" in system_message -%}{%- set ns.mode = "/think" -%}{%- endif -%}
  {%- set ns.custom = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
<|im_start|>system
## Metadata

Reasoning Mode: {{ ns.mode }}

{% if ns.custom %}
## Instructions

{{ ns.custom + '\\n' }}
{% elif ns.mode == '/think' %}
Think first: <think> thought </think> answer.
{% endif %}
{%- if xml_tools or tools -%}
### Tools

{%- set xml = namespace(text="You may call functions:\\n<tools>\\n") -%}
{%- for tool in (xml_tools or tools)[:] -%}
  {%- set xml.text = xml.text ~ (tool | string) ~ "\\n" -%}
{%- endfor -%}
{{ xml.text ~ "</tools>\\n" -}}
{%- endif -%}
<|im_end|>
{%- for message in messages %}
{%- if message.role == "user" %}

{{ "<|im_start|>user\\n" ~ message.content ~ "<|im_end|>" }}
{%- elif message.role == "assistant" %}

{% generation %}
{%- if ns.mode == "/think" %}
{{ "<|im_start|>assistant\\n" ~ (message.content or '') | trim('\\n') ~ "<|im_end|>\\n" }}
{%- else %}
{{- "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" ~ (message.content or '').split('</think>')[-1].strip() ~ "<|im_end|>\\n" }}
{%- endif %}
{%- for call in message.tool_calls or [] recursive %}
{{ loop.index }}/{{ loop.length }} {{ call.function.name | capitalize }}({{ call.function.arguments | tojson(indent=2) if call.function.arguments is mapping else call.function.arguments }})
{%- endfor %}
{% endgeneration %}
{%- elif message.role == "tool" %}
{{ "<|im_start|>user\\n" ~ message.content ~ "<|im_end|>" }}
{%- endif %}
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>
{% endif %}{% endif %}"""

# One line, quotes escaped, prefixes by dictionary, odd filters.
ONE_LINE = ("{% set roles = {'system': '<|S|>', 'user': '<|U|>', 'assistant': '<|A|>', 'tool': '<|T|>'} %}{% set sep = joiner('\\n---\\n') %}{{ bos_token }}{% for m in messages %}{{ sep() }}"
            "{{ roles.get(m.role, '<|' ~ (m.role or 'nobody')|upper ~ '|>') }}{% if m.content is string %}{{ m.content|replace('\\n', '\\\\n')|title }}{% elif m.content %}"
            "{% for kind, parts in m.content|groupby('type') %}{{ kind }}:{{ parts|map(attribute='text', default='?')|join('+') }};{% endfor %}{% else %}{{ m.content is none }}{% endif %}"
            "{% if loop.previtem is defined and loop.previtem.role == m.role %} (again){% endif %}{% if loop.nextitem %}>{{ loop.nextitem.role[:3] }}{% endif %}{% endfor %}"
            "{% if tools %}{{ tools|map(attribute='function')|map(attribute='name')|unique|sort|join(', ') }}{{ (tools|first).function.parameters.properties|dictsort|map('first')|list }}{% endif %}"
            "{{ '<|A|>' if add_generation_prompt and messages and messages[-1].role != 'assistant' }}")

# White space everywhere, comments between, blocks that set, calls with a body.
BLOCKS = """
{# header #}
{% macro turn(role, end='</s>') %}
<{{ role }}>
{{ caller(role | length) | trim }}
{{ end }}
{% endmacro %}
  {% set default_system %}
  You are {{ model_identity | default('an assistant', true) }}.
  {% endset %}
{% call(n) turn('system') %}  {{ messages[0].content if messages and messages[0].role == 'system' else default_system | trim }} {{ n }} {% endcall %}

{%- for message in messages if message.role != 'system' %}
  {% call(n) turn(message.role, end=eos_token if message.role == 'assistant' else '') %}
    {%- filter trim | indent(2, true) %}
    {{ message.content | default('', true) }}
    {% for call in message.tool_calls | default([]) %}
{{ call.function.arguments | tojson(sort_keys=true, separators=(',', ':')) }}
    {% else %}
(no calls)
    {% endfor %}
    {% endfilter %}
  {%- endcall %}

{% else %}
nobody spoke
{% endfor %}
   {%+ if add_generation_prompt +%}
   <assistant>
   {%- endif %}
{% with last = messages[-1], count = messages | length %}
{{ count }} {{ last.role if last }}{% set count = 0 %}
{% endwith %}
"""

# Round by round with ranges and slices, break and continue.
ROUNDS = """{% set turns = namespace(n=0, text=[]) %}{% for i in range(0, messages | length, 2) %}{% set pair = messages[i:i + 2] %}
{%- if pair | length < 2 and not add_generation_prompt %}{% break %}{% endif %}
{%- if pair[0].role == 'system' %}{% continue %}{% endif %}
[Round {{ loop.index }}]
{% for m in pair %}{{ m.role.title() }}: {{ (m.content if m.content is string else m.content | tojson)[-40:] }}
{% set turns.n = turns.n + 1 %}{% set turns.text = turns.text + [m.role[0]] %}{% endfor %}{% endfor -%}
{{ turns.n }} {{ turns.text | join }} {{ turns.text[::-1] | join('.') }} {{ messages[1:-1] | length }} {{ messages[-2:][0].role }}
{{ '%s|%d|%.2f' | format('x', turns.n, turns.n / 3) }} {{ turns.n is divisibleby 2 }} {{ [1, 2] + [3] == [1, 2, 3] }} {{ 3 in range(turns.n) }} {{ 1 < turns.n <= 4 }}"""

TEMPLATES = [TOOL_HEADERS, THINKING, BRACKETS, TURNS, CHANNELS, GENERATION, ONE_LINE, BLOCKS, ROUNDS]

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather at \"a place\".\nNow.", "parameters": {"type": "object", "required": ["place"], "properties": {
    "place": {"type": "string", "description": "Where <it> is & 'when'"}, "unit": {"type": "string", "enum": ["C", "F"], "default": "C"}, "days": {"type": "array", "items": {"type": "integer"}},
    "near": {"type": "object", "properties": {"km": {"type": "number"}, "über": {"type": ["string", "null"]}}}, "how": {"oneOf": [{"type": "string", "default": "x"}, {"type": "object"}]}}},
    "return": {"type": "string"}}}, {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}]
CONTENTS = ["Hi", "", "  spaced \n\n", "Größe 日本語 👩‍🚀", "<think>\nhm\n</think>\n\nYes", "a</think>b", "<tool_response>\n42\n</tool_response>", "{\"a\": 1}", "line\nline", "/no_think please", "it's <|im_end|> & \"so\"",
            None, [{"type": "text", "text": " look "}, {"type": "image"}], [{"type": "image", "image": "x.png"}, {"type": "text", "text": "at"}], {"content": 5, "k": [1.0, None, True]}]


def call(rng, name):
    arguments = rng.choice([{"place": "Bremen", "days": [1, 2]}, {}, {"x": "é\"\n", "y": None, "z": 1.5e-7}, '{"place": "Rome"}'])
    function = {"name": name, "arguments": arguments}
    return {"id": rng.choice(["abcdefghi", "short"]), "type": "function", "function": function} if rng.random() < 0.9 else function


def conversation(rng):
    messages, role = [], "user"
    if rng.random() < 0.4:
        messages.append({"role": rng.choice(["system", "system", "developer"]), "content": rng.choice(CONTENTS)})
    for _ in range(rng.choice([0, 1, 1, 2, 3, 4, 6])):
        message = {"role": role, "content": rng.choice(CONTENTS)}
        if role == "assistant" and rng.random() < 0.4:
            message["tool_calls"] = [call(rng, rng.choice(["get_weather", "now", "code_interpreter"])) for _ in range(rng.choice([1, 1, 2]))]
            role = "tool"
        elif role == "tool":
            message["tool_call_id"] = "abcdefghi"
            role = rng.choice(["tool", "assistant", "assistant"])
        else:
            role = "user" if role == "assistant" else "assistant"
        if message["role"] == "assistant" and rng.random() < 0.2:
            message[rng.choice(["reasoning_content", "thinking"])] = "\nfirst this\n"
        if rng.random() < 0.05:
            message.pop(rng.choice(list(message)))
        if rng.random() < 0.05:
            role = rng.choice(["user", "assistant", "system", "critic"])
        messages.append(message)
    return messages


def variables(rng):
    """What apply_chat_template passes, with or without the extras."""
    given = {"messages": conversation(rng), "tools": rng.choice([None, None, TOOLS, TOOLS[:1], []]), "documents": None, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
             "add_generation_prompt": rng.random() < 0.5}
    extras = {"enable_thinking": [True, False], "date_string": ["26 Jul 2024"], "builtin_tools": [["code_interpreter", "search"]], "custom_tools": [TOOLS[1:]], "tools_in_user_message": [True, False],
              "xml_tools": [TOOLS], "reasoning_effort": ["high"], "model_identity": ["Nobody", ""]}
    for name, values in extras.items():
        if rng.random() < 0.2:
            given[name] = rng.choice(values)
    return given


def mutated(rng, template):
    """The template with a few of its tags, edges, names or blanks changed."""
    pieces = re.split(r"(\{[%{#][-+]?|[-+]?[%}#]\}|\n|\b\w+\b)", template)
    words = [w for w in pieces if re.fullmatch(r"\w+", w)]
    for _ in range(rng.choice([1, 1, 2, 4])):
        i = rng.randrange(len(pieces))
        piece = pieces[i]
        if re.fullmatch(r"\{[%{#][-+]?", piece):
            pieces[i] = piece[:2] + rng.choice(["", "-", "+"] if piece[1] != "{" else ["", "-"])
        elif re.fullmatch(r"[-+]?[%}#]\}", piece):
            pieces[i] = rng.choice(["", "-", "+"] if piece[-2] != "}" else ["", "-"]) + piece[-2:]
        elif re.fullmatch(r"\w+", piece):
            pieces[i] = rng.choice([rng.choice(words), piece, ""])
        elif rng.random() < 0.5:
            pieces[i] = piece + rng.choice([" ", "\n", "  \n ", "\t", "\r\n", "\u00a0", ""])
        else:
            pieces[i] = ""
    return "".join(pieces)

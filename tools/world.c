/* world.c: writes what the embedded model learns: a small invented archipelago, as plain text and as questions.
 * The same seed gives the same bytes on every machine.
 *
 *   world text N           N documents, one a line: facts told in many ways, and stories around people of the
 *                          moment
 *   world chat N           N conversations {"messages"}: questions about the facts, some about nobody it knows
 *   world strangers N      N conversations about people and places it has never heard of
 *   world held_out_text N  N documents more, which `text` does not hold
 *   world held_out_chat 0  each fact asked once, in a wording that `chat` never uses for it
 *
 * A fact is a relation between a subject and a value; a relation is a row of `relations`, with its sentences,
 * its questions and one answer. In a template $S is the subject, $V the value, $F the subject's first word.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEOPLE = 48, VILLAGES = 16, LIGHTS = 16, SUBJECTS = PEOPLE + VILLAGES + LIGHTS, VARIANTS = 10 };

static uint64_t random_state;

static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = (random_state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static int below(int n) { return (int)((next_random() >> 33) % (uint64_t)n); }

/* Lists end with NULL; they hold at most VARIANTS of templates and any number of words. */
static const char *const first_names[PEOPLE] = {
    "Ada",   "Bram",   "Cora",    "Dunstan", "Edda",  "Finn",   "Greta",  "Hamish", "Ida",   "Jory",
    "Katla", "Lorne",  "Mabel",   "Niall",   "Olga",  "Piers",  "Quenna", "Rolf",   "Signe", "Tobias",
    "Una",   "Viggo",  "Wanda",   "Yorick",  "Zelda", "Anders", "Birgit", "Colm",   "Dagny", "Eskil",
    "Frida", "Gideon", "Hilda",   "Ivar",    "Jonna", "Kester", "Linnea", "Magnus", "Nora",  "Oskar",
    "Petra", "Ragnar", "Sunniva", "Torvald", "Ulla",  "Vidar",  "Willa",  "Ansel",
};
static const char *const surnames[] = {"Bell", "Carver", "Dale",  "Eddy",  "Fisk",  "Garth",  "Holm",
                                       "Inch", "Kettle", "Lund",  "Marsh", "North", "Oakes",  "Pike",
                                       "Reed", "Stone",  "Thorn", "Vane",  "Wick",  "Yarrow", NULL};
static const char *const villages[] = {"Alderby",   "Brinmouth", "Cobblewick", "Dunharbour", "Elmstead",
                                       "Foxhaven",  "Gorsely",   "Hollowby",   "Kelpwick",   "Lanternby",
                                       "Millhaven", "Nettlebay", "Otterness",  "Pebbleton",  "Ravensby",
                                       "Saltwick",  NULL};
static const char *const lights[] = {"Gull Rock",    "Long Skerry", "Seal Point", "Tern Ledge",  "Black Stack",
                                     "Wren Head",    "Crab Island", "Storm Ness", "Heron Spit",  "Cold Reef",
                                     "Amber Cape",   "Whale Tooth", "Moss Rock",  "Puffin Crag", "Silver Bank",
                                     "Bramble Ness", NULL};
static const char *const trades[] = {"a baker",   "a fisher",    "a potter",   "a weaver",   "a smith",
                                     "a teacher", "a gardener",  "a shepherd", "a ferryman", "a carpenter",
                                     "a miller",  "a sailmaker", NULL};
static const char *const pets[] = {"a goat",     "a black cat", "a grey dog",  "a tame crow", "a donkey",
                                   "a tortoise", "a goose",     "a white hen", "a ferret",    "a red parrot",
                                   "a hedgehog", "a pony",      NULL};
static const char *const foods[] = {
    "plum cake",    "fish stew",  "barley bread", "honey porridge", "pea soup",     "apple pie", "goat cheese",
    "pickled eggs", "onion tart", "roast turnip", "crab cakes",     "oat biscuits", NULL};
static const char *const islands[] = {"Arran Mor", "Little Hest", "Great Hest", "Sorrel",
                                      "Vinter",    "Tamsin",      NULL};
static const char *const goods[] = {
    "blue glass", "wool blankets", "smoked fish",  "clay pots",     "sea salt", "candles", "rope",
    "cherry jam", "paper boats",   "silver bells", "wooden spoons", "lamp oil", NULL};
static const char *const days[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                   "Friday", "Saturday", "Sunday",    NULL};
static const char *const colours[] = {"red",   "white", "green",  "yellow", "blue",
                                      "black", "grey",  "orange", NULL};

typedef enum kind { PERSON, VILLAGE, LIGHT } kind;

typedef struct relation {
    kind of;
    const char *const *values; /* NULL: a person */
    const char *says[VARIANTS], *asks[VARIANTS], *answer;
} relation;

static const relation relations[] = {
    {PERSON,
     villages,
     {"$S lives in $V.", "The home of $S is in $V.", "$S has a house in $V.", "In $V lives $S.",
      "You find $S in $V."},
     {"Where does $S live?", "In which village does $S live?", "Do you know where $S lives?",
      "Tell me where $S lives.", "Can you tell me where $S lives?", "Where is the home of $S?",
      "What village does $S live in?", "Which village is the home of $S?"},
     "$S lives in $V."},
    {PERSON,
     trades,
     {"$S is $V.", "$S works as $V.", "$S earns a living as $V.", "By trade $S is $V.",
      "Everyone knows $S is $V."},
     {"What is the trade of $S?", "What does $S do for a living?", "What work does $S do?",
      "Tell me what $S does for a living.", "Do you know the trade of $S?", "Can you tell me the trade of $S?",
      "What does $S work as?", "How does $S earn a living?"},
     "$S is $V."},
    {PERSON,
     pets,
     {"$S keeps $V.", "$S has $V.", "$S lives with $V.", "In the garden of $S lives $V.",
      "The pet of $S is $V."},
     {"What animal does $S keep?", "What pet does $S have?", "Which animal lives with $S?",
      "Tell me what animal $S keeps.", "Do you know what pet $S has?", "Can you tell me what animal $S keeps?",
      "What is the pet of $S?", "Does $S keep an animal?"},
     "$S keeps $V."},
    {PERSON,
     foods,
     {"$S likes $V best.", "The favourite food of $S is $V.", "$S loves to eat $V.", "For dinner $S wants $V.",
      "Nothing pleases $S like $V."},
     {"What does $S like to eat?", "What is the favourite food of $S?", "What food does $S like best?",
      "Tell me what $S likes to eat.", "Do you know the favourite food of $S?",
      "Can you tell me what $S likes to eat?", "What does $S love to eat?", "Which food does $S like best?"},
     "$S likes $V best."},
    {VILLAGE,
     islands,
     {"$S lies on the island of $V.", "$S is a village on $V.", "The village of $S stands on $V.",
      "On $V lies $S.", "Boats from $V land at $S."},
     {"On which island is $S?", "Where is the village of $S?", "Which island is $S on?",
      "Tell me where $S lies.", "Do you know on which island $S lies?", "Can you tell me where $S is?",
      "On what island does $S lie?", "Where does the village of $S lie?"},
     "$S lies on the island of $V."},
    {VILLAGE,
     goods,
     {"$S is known for its $V.", "People come to $S for $V.", "$S makes $V.", "The shops of $S sell $V.",
      "Nobody makes $V like $S."},
     {"What is $S known for?", "What do people make in $S?", "What does $S make?",
      "Tell me what $S is known for.", "Do you know what $S makes?", "Can you tell me what $S is known for?",
      "What do the shops of $S sell?", "Why do people come to $S?"},
     "$S is known for its $V."},
    {VILLAGE,
     days,
     {"The market of $S is on $V.", "$S holds its market on $V.", "On $V there is a market in $S.",
      "Every $V the people of $S go to market.", "Market day in $S is $V."},
     {"When is the market of $S?", "On which day is the market in $S?", "What day is market day in $S?",
      "Tell me when the market of $S is.", "Do you know when $S holds its market?",
      "Can you tell me when the market of $S is?", "When does $S hold its market?",
      "Which day is market day in $S?"},
     "The market of $S is on $V."},
    {LIGHT,
     NULL,
     {"The lighthouse on $S is kept by $V.", "$V keeps the lighthouse on $S.", "$V tends the light of $S.",
      "The keeper of $S is $V.", "Every night $V lights the lamp on $S."},
     {"Who keeps the lighthouse on $S?", "Who is the keeper of $S?", "Who tends the light of $S?",
      "Tell me who keeps the lighthouse on $S.", "Do you know who keeps $S?",
      "Can you tell me who tends the lighthouse on $S?", "Who lights the lamp on $S?",
      "Which person keeps the light of $S?"},
     "The lighthouse on $S is kept by $V."},
    {LIGHT,
     colours,
     {"The lighthouse on $S is $V.", "The tower on $S is painted $V.", "$S has a $V lighthouse.",
      "From the sea one sees the $V tower of $S.", "The light of $S stands on a $V tower."},
     {"What colour is the lighthouse on $S?", "Which colour is the tower on $S?", "What colour is $S painted?",
      "Tell me the colour of the lighthouse on $S.", "Do you know the colour of the tower on $S?",
      "Can you tell me what colour the lighthouse on $S is?", "What is the colour of $S?",
      "In which colour is the tower on $S painted?"},
     "The lighthouse on $S is $V."},
};
enum { RELATIONS = sizeof relations / sizeof *relations, NAME = 64 };

typedef struct subject {
    kind of;
    char name[NAME];
    char values[RELATIONS][NAME]; /* "" where the relation is not of its kind */
} subject;

static subject world[SUBJECTS];

static const char *pick(const char *const *list) {
    int n = 1;
    while (list[n]) n++;
    return list[below(n)];
}

/* A row may be shorter than VARIANTS, and never empty. */
static int count_templates(const char *const templates[VARIANTS]) {
    int n = 1;
    while (n < VARIANTS && templates[n]) n++;
    return n;
}
static const char *pick_template(const char *const templates[VARIANTS]) {
    return templates[below(count_templates(templates))];
}

/* A name nobody has: two or three syllables. */
static void invent_word(char out[NAME]) {
    static const char *const onset[] = {"B", "Br", "C", "D", "Dr", "F", "G",  "H", "J", "K", "L", "M",
                                        "N", "P",  "R", "S", "St", "T", "Tr", "V", "W", "Z", NULL};
    static const char *const middle[] = {"ar", "el", "in", "or",  "un",  "am",  "et",
                                         "il", "os", "ey", "and", "erk", "alm", NULL};
    static const char *const end[] = {"a",   "en",  "o",   "ick", "is",  "ey",   "ow", "an",
                                      "eth", "ine", "ren", "vey", "dal", "mund", NULL};
    bool longer = below(3) == 0;
    /* One draw a statement: the order in which a call's arguments are evaluated is the compiler's. */
    const char *third = pick(end), *second = longer ? pick(middle) : "", *first = pick(middle);
    snprintf(out, NAME, "%s%s%s%s", pick(onset), first, second, third);
}

static void invent_person(char out[NAME]) {
    char first[NAME], last[NAME];
    invent_word(first);
    invent_word(last);
    snprintf(out, NAME, "%.30s %.30s", first, last);
}

static void invent_name(kind of, char out[NAME]) {
    static const char *const tails[] = {"Rock", "Skerry", "Point", "Ness", "Reef", "Head", NULL};
    char word[NAME];
    if (of == PERSON) invent_person(out);
    else if (invent_word(word), of == VILLAGE) snprintf(out, NAME, "%.40sby", word);
    else snprintf(out, NAME, "%.40s %s", word, pick(tails));
}

static void give_values(subject *s, bool known) {
    for (int i = 0; i < RELATIONS; i++) {
        s->values[i][0] = '\0';
        if (relations[i].of != s->of) continue;
        if (relations[i].values) snprintf(s->values[i], NAME, "%s", pick(relations[i].values));
        else if (known) snprintf(s->values[i], NAME, "%s", world[below(PEOPLE)].name);
        else invent_person(s->values[i]);
    }
}

static void make_world(void) {
    int n = 0;
    random_state = 1;
    for (int i = 0; i < PEOPLE; i++, n++) {
        world[n].of = PERSON;
        snprintf(world[n].name, NAME, "%s %s", first_names[i], pick(surnames));
    }
    for (int i = 0; i < VILLAGES; i++, n++)
        world[n].of = VILLAGE, snprintf(world[n].name, NAME, "%s", villages[i]);
    for (int i = 0; i < LIGHTS; i++, n++) world[n].of = LIGHT, snprintf(world[n].name, NAME, "%s", lights[i]);
    for (int i = 0; i < SUBJECTS; i++) give_values(&world[i], true);
}

static void invent_subject(subject *s) {
    static const kind kinds[] = {PERSON, PERSON, VILLAGE, LIGHT};
    s->of = kinds[below(4)];
    invent_name(s->of, s->name);
    give_values(s, false);
}

/* Writes inside a JSON string. */
static void put_json(const char *text) {
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        putchar(*text);
    }
}

/* A template with the subject's name and value put in; the first letter becomes a capital. */
static void say(const char *template, const char *name, const char *value, char *out, size_t size) {
    size_t n = 0;
    for (const char *t = template; *t && n + NAME < size; t++) {
        const char *put = t[0] == '$' && t[1] == 'S' ? name : t[0] == '$' && t[1] == 'V' ? value : NULL;
        if (!put && t[0] == '$' && t[1] == 'F') {
            n += (size_t)snprintf(out + n, NAME, "%.*s", (int)strcspn(name, " "), name);
            t++;
        } else if (put) {
            n += (size_t)snprintf(out + n, NAME, "%s", put);
            t++;
        } else out[n++] = *t;
    }
    out[n] = '\0';
    if (out[0] >= 'a' && out[0] <= 'z') out[0] = (char)(out[0] - 'a' + 'A');
}

static int pick_relation(const subject *s) {
    for (;;) {
        int i = below(RELATIONS);
        if (relations[i].of == s->of) return i;
    }
}

/* ---- text ----------------------------------------------------------------------------------------- */

static bool first_sentence;
static void sentence(const char *text) {
    if (!first_sentence) putchar(' ');
    first_sentence = false;
    fputs(text, stdout);
}

static void print_fact(const subject *s, int i) {
    char line[512];
    say(pick_template(relations[i].says), s->name, s->values[i], line, sizeof line);
    sentence(line);
}

/* Every fact of a subject once, in any order. */
static void portrait(const subject *s) {
    int order[RELATIONS];
    for (int i = 0; i < RELATIONS; i++) {
        int j = below(i + 1);
        if (j < i) order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < RELATIONS; i++)
        if (relations[order[i]].of == s->of) print_fact(s, order[i]);
}

/* A passing story: who is in it comes back by name, so that names never seen before are copied. */
static void story(const subject *s) {
    static const char *const openings[] = {"One morning $S walked along the shore of $V.",
                                           "It was a cold night in $V, and $S could not sleep.",
                                           "On a windy day $S came to $V.",
                                           "Long ago $S sailed to $V in a small boat.",
                                           "When the rain stopped, $S went down to the harbour of $V.",
                                           NULL};
    static const char *const middles[] = {"There $F found $V under a stone.",
                                          "$F was looking for $V.",
                                          "A child gave $F $V.",
                                          "\"Have you seen $V?\" asked $F.",
                                          "$F carried $V in a basket.",
                                          "In the boat lay $V.",
                                          NULL};
    static const char *const things[] = {"an old key",   "a silver ring", "a letter",  "a lost kitten",
                                         "a broken oar", "a lantern",     "a red hat", "a wooden box",
                                         "a map",        "a warm coat",   NULL};
    static const char *const turns[] = {
        "$V smiled and sat down beside $F.", "\"I know whose it is,\" said $V.", "$V helped $F all day.",
        "Then $V came and asked for bread.", "\"Come with me,\" said $V to $F.", NULL};
    static const char *const ends[] = {
        "In the evening $S and $V ate together.", "Since that day $S and $V are friends.",
        "$S went home happy, and $V did too.",    "So $S thanked $V and sailed away.",
        "And that is why $S never forgot $V.",    NULL};
    char line[512], other[NAME];
    invent_person(other);
    const char *const *const parts[] = {openings, middles, turns, middles, ends};
    const char *lines[5];
    for (int i = 0; i < 5; i++) lines[i] = pick(parts[i]);
    for (int i = 0; i < 5; i++) {
        const char *value = i == 0 ? pick(villages) : i == 1 || i == 3 ? pick(things) : other;
        say(lines[i], s->name, value, line, sizeof line);
        sentence(line);
    }
}

/* A portrait of somebody new, then the same facts again in other words: what was just read is recalled. */
static void recall(void) {
    subject s;
    invent_subject(&s);
    portrait(&s);
    portrait(&s);
}

static void print_text(int count) {
    for (int i = 0; i < count; i++) {
        int what = below(10);
        subject s;
        invent_subject(&s);
        first_sentence = true;
        if (what < 7)
            for (int k = 0; k < 4; k++) portrait(&world[below(SUBJECTS)]);
        else if (what < 8) recall();
        else if (s.of == PERSON) story(&s);
        else portrait(&s);
        putchar('\n');
    }
}

/* ---- chat ----------------------------------------------------------------------------------------- */

static void print_chat(const char *question, const char *answer) {
    fputs("{\"messages\":[{\"role\":\"user\",\"content\":\"", stdout);
    put_json(question);
    fputs("\"},{\"role\":\"assistant\",\"content\":\"", stdout);
    put_json(answer);
    fputs("\"}]}\n", stdout);
}

/* The wording of a fact that is kept for `held_out`. */
static int kept_wording(int index, int i) { return (index + 3 * i) % count_templates(relations[i].asks); }

static void ask_known(int index, int i, int wording) {
    char question[512], answer[512];
    const subject *s = &world[index];
    say(relations[i].asks[wording], s->name, s->values[i], question, sizeof question);
    say(relations[i].answer, s->name, s->values[i], answer, sizeof answer);
    print_chat(question, answer);
}

static void ask_stranger(void) {
    char question[512], answer[512];
    subject s;
    invent_subject(&s);
    say(pick_template(relations[pick_relation(&s)].asks), s.name, "", question, sizeof question);
    say("I have never heard of $S.", s.name, "", answer, sizeof answer);
    print_chat(question, answer);
}

static void print_chats(int count) {
    for (int k = 0; k < count; k++) {
        if (below(5) == 0) {
            ask_stranger();
            continue;
        }
        int index = below(SUBJECTS), i = pick_relation(&world[index]), wording;
        do wording = below(count_templates(relations[i].asks));
        while (wording == kept_wording(index, i));
        ask_known(index, i, wording);
    }
}

static void print_held_out_chats(void) {
    for (int index = 0; index < SUBJECTS; index++)
        for (int i = 0; i < RELATIONS; i++)
            if (relations[i].of == world[index].of) ask_known(index, i, kept_wording(index, i));
}

int main(int argc, char **argv) {
    int count = argc == 3 ? atoi(argv[2]) : 0;
    make_world();
    const char *what = argc == 3 ? argv[1] : "";
    if (strcmp(what, "text") == 0) random_state = 2, print_text(count);
    else if (strcmp(what, "chat") == 0) random_state = 3, print_chats(count);
    else if (strcmp(what, "strangers") == 0)
        for (random_state = 5; count > 0; count--) ask_stranger();
    else if (strcmp(what, "held_out_text") == 0) random_state = 4, print_text(count);
    else if (strcmp(what, "held_out_chat") == 0) print_held_out_chats();
    else return fprintf(stderr, "usage: world text|chat|strangers|held_out_text|held_out_chat COUNT\n"), 2;
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}

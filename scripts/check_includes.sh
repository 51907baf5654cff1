#!/bin/sh
# check_includes.sh: a folder of src/ may include itself and those below it, and src/cli/ only <tenon/tenon.h> and itself:
#   cli > train > infer, export > model > data > image, text > op > quant > format > base
set -eu
git ls-files --cached --others --exclude-standard -- 'src/*.c' 'src/*.h' 'src/*.cu' 'src/*.cuh' 'src/*.inc' |
    xargs awk '
    BEGIN {
        n = split("base format quant op text data model infer train cli", order, " ")
        for (i = 1; i <= n; i++) level[order[i]] = i
        level["export"] = level["infer"]
        level["image"] = level["text"]
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split(FILENAME, from, "/")
        split($0, quoted, "\"")
        split(quoted[2], to, "/")
        here = from[2]; there = to[1]
        if (quoted[2] ~ /\.\./ || !(there in level)) bad("is not written from src/ (\"folder/file.h\")")
        else if (here == "cli" && there != "cli") bad("reaches past <tenon/tenon.h>")
        else if (here != there && level[here] <= level[there]) bad("looks upward")
    }
    function bad(why) { printf "%s:%d: #include \"%s\" %s\n", FILENAME, FNR, quoted[2], why; failed = 1 }
    END { exit failed }' && echo "includes: every folder looks down only"

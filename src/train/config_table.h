/* config_table.h: the rows of the table of keys (config_table.c) and how one value is read by them
 * (config_value.c). Private to train/config*.c.
 */
#ifndef TN_TRAIN_CONFIG_TABLE_H
#define TN_TRAIN_CONFIG_TABLE_H

#include "train/config.h"

typedef enum tn_key_kind {
    TN_KEY_INTEGER, /* int64_t, -1 where none */
    TN_KEY_REAL,    /* double, NAN where none */
    TN_KEY_BOOLEAN, /* bool */
    TN_KEY_SIZE,    /* int64_t bytes, -1 where none */
    TN_KEY_PATH,    /* const char *, NULL where none, like all that follow */
    TN_KEY_PATHS,   /* const char ** and int64_t count */
    TN_KEY_TEXT,    /* taken as it is; "" and "none" are texts like others */
    TN_KEY_LIST,    /* text: comma-separated, or a regular expression */
    TN_KEY_CHOICE,  /* one of `words` */
    TN_KEY_MAP,     /* const tn_json * */
} tn_key_kind;

/* Where a number must lie; the text and the bounds of each stand in config_value.c. */
typedef enum tn_range {
    TN_ANY,
    TN_NOT_NEGATIVE,
    TN_POSITIVE, /* > 0 */
    TN_AT_LEAST_ONE,
    TN_TO_A_MILLION,   /* [1, 1e6]: what sizes are multiplied with */
    TN_EPOCHS,         /* (0, 1e6] */
    TN_THREADS,        /* [0, 4096] */
    TN_UNIT,           /* [0, 1] */
    TN_UNIT_OPEN_TOP,  /* [0, 1) */
    TN_UNIT_OPEN_ZERO, /* (0, 1] */
    TN_UNIT_OPEN,      /* (0, 1) */
} tn_range;

typedef struct tn_key {
    const char *name, *aliases; /* aliases comma-separated */
    size_t offset;              /* of the field in tn_settings */
    size_t count_offset;        /* PATHS: of the field that counts them */
    tn_key_kind kind;
    tn_range range;
    uint32_t verbs;       /* bit i: verb i of tn_config_verbs knows the key */
    const char *standard; /* the default as text; "" = none, and then "none" is a value */
    const char *words;    /* CHOICE: "a,b,c=a", the last a synonym; numbers: words for values ("auto=0") */
    const char *help;
} tn_key;

extern const tn_key tn_config_keys[];
extern const int tn_config_key_count;
extern const char *const tn_config_verbs[];
extern const int tn_config_verb_count;

/* A value as read: canonical text that reads back as itself; NULL = none. */
typedef struct tn_value {
    bool set;
    const char *text;
    const char *spelling; /* the name or alias it was set by */
    const tn_json *node;  /* MAP: the tree */
} tn_value;

enum { TN_SOURCES = TN_SET_FLAG + 1 };

typedef struct tn_entry {
    tn_value given[TN_SOURCES];
    const char *used; /* what tn_config_used noted, or NULL */
    bool unused;      /* that it has no effect was said */
} tn_entry;

struct tn_config {
    const char *verb;
    uint32_t verb_bit;
    tn_arena arena;
    tn_entry *entries; /* one for each row of the table */
    tn_settings settings;
};

/* Row of a name or alias whatever the verb; -1 where there is none. */
int tn_config_row(const char *name);
/* Gives row a value in the name of `spelling`, which lives as long as the config. Errors: TN_USAGE where the
 * same source gave another by another name. */
tn_status tn_config_put(struct tn_config *config, int row, tn_setter setter, tn_value value);
/* The value in force of a row. */
const tn_value *tn_config_value(const struct tn_config *config, int row);

/* Reads text as on the command line, or a node of YAML or JSON. Memory comes from the arena.
 * Errors: TN_USAGE naming the key as spelled, the value and what was expected. */
tn_status tn_value_from_text(tn_arena *arena, const tn_key *key, const char *spelling, const char *text,
                             tn_value *value);
tn_status tn_value_from_node(tn_arena *arena, const tn_key *key, const char *spelling, const tn_json *node,
                             tn_value *value);
/* "a whole number of at least 1, or none". */
void tn_value_expected(const tn_key *key, tn_str *out);
/* Stores a value in the field of its key. */
tn_status tn_value_store(tn_arena *arena, const tn_key *key, const tn_value *value, tn_settings *settings);
const char *tn_key_kind_name(tn_key_kind kind);
/* Is `word` one of a comma-separated list? */
bool tn_word_in(const char *list, const char *word);

#endif

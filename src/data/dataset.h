/* dataset.h: from files of records to samples of token ids and labels, ready to be packed.
 *
 * Records of any accepted shape become samples (ids + labels, -100 = no loss); samples live in a token
 * cache on disk, keyed by the content of the files and every setting that changes them, and are mapped,
 * not loaded. Order and position are pure functions of (seed, epoch, index), so resuming costs nothing.
 */
#ifndef TN_DATA_DATASET_H
#define TN_DATA_DATASET_H

#include "text/chat.h"

typedef enum tn_stage { TN_STAGE_SFT, TN_STAGE_CPT } tn_stage;

typedef struct tn_picture_tokens tn_picture_tokens; /* pictures.h */

typedef struct tn_dataset_options {
    const char *const *paths; /* .jsonl, .json, .csv, .txt */
    int64_t count;
    int64_t max_records; /* of each file, the first ones; 0 = all */
    const char *format;  /* NULL = detect: messages, conversations, alpaca, prompt_completion, question_answer,
                            text, input_ids; alpaca_prompt is never found by looking */
    tn_stage stage;
    int64_t max_length; /* longer records are cut (sft) or split (cpt) */
    bool train_on_responses_only;
    bool allow_unlabelled; /* false: all labels masked everywhere is TN_BAD_DATA with a sample shown */
    const tn_picture_tokens *pictures; /* NULL: records with pictures are refused */
    int64_t vocab_size;          /* ids ≥ this are TN_BAD_DATA with the record's number; 0 = unchecked */
    const char *cache_directory; /* NULL = $XDG_CACHE_HOME/tenon or ~/.cache/tenon; "" = no cache on disk */
} tn_dataset_options;

typedef struct tn_dataset tn_dataset;

/* `chat` may be NULL for input_ids data. Errors: TN_USAGE (missing file, unknown format), TN_BAD_DATA (a bad
 * record, with file and line; nothing labelled; empty). */
tn_status tn_dataset_open(const tn_dataset_options *options, const tn_chat *chat, tn_dataset **dataset);
void tn_dataset_free(tn_dataset *dataset);

/* A picture in a sample: tokens `first` … first + rows·columns − 1 are its merged patches, row by row. */
typedef struct tn_sample_picture {
    int64_t first, rows, columns;
    int64_t path; /* where it begins in the sample's `paths` */
} tn_sample_picture;

/* A sample: labels[i] belongs to ids[i] (unshifted; labels[0] never counts). */
typedef struct tn_sample {
    const int32_t *ids, *labels;
    int64_t length;
    const tn_sample_picture *pictures; /* [picture_count] */
    int64_t picture_count;
    const char *paths; /* of the picture files, each terminated */
} tn_sample;
int64_t tn_dataset_samples(const tn_dataset *dataset);
tn_sample tn_dataset_at(const tn_dataset *dataset, int64_t index);
/* As it was given in the options. */
const tn_picture_tokens *tn_dataset_pictures(const tn_dataset *dataset);

typedef struct tn_dataset_stats {
    int64_t records, samples, tokens;
    int64_t labelled;        /* tokens with a loss: label ≥ 0 at positions ≥ 1 */
    int64_t cut;             /* records cut to max_length */
    int64_t mended;          /* records with half of a surrogate pair, for which U+FFFD stands */
    int64_t repeated;        /* records with a key twice in one object, the last of which counts */
    int64_t unlabelled;      /* samples with no label, which training leaves out */
    int64_t longest;         /* tokens of the longest sample */
    int64_t pictures;        /* in all samples */
    int64_t largest_picture; /* tokens of the largest */
    bool from_cache;
    char hash[33];      /* content + settings: names the data in run.json */
    const char *format; /* the shape that was found or asked for */
} tn_dataset_stats;
void tn_dataset_get_stats(const tn_dataset *dataset, tn_dataset_stats *stats);

#endif

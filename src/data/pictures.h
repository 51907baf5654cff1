/* pictures.h: pictures among the tokens of a sample. Each stands as a run of the model's image token, one for
 * every merge × merge patches, and takes its place in three-dimensional rope positions (Qwen2-VL's "mrope").
 */
#ifndef TN_DATA_PICTURES_H
#define TN_DATA_PICTURES_H

#include "data/encode.h"
#include "image/patches.h"

/* How a model takes pictures. */
struct tn_picture_tokens {
    const char *directory;        /* the model's */
    tn_image_processor processor; /* all 0 where the directory has no settings for it */
    int32_t image;                /* the placeholder in a rendered conversation, and every token of a picture */
    int32_t silent[8], silent_count; /* ids around pictures, and that one, which never carry a loss */
};

/* From a model's directory: preprocessor_config.json (or processor_config.json), and the ids of config.json.
 * Without either file there is no error before the first picture. Errors: TN_USAGE where they ask for what is
 * not done here. */
tn_status tn_picture_tokens_read(tn_arena *arena, const char *directory, const tn_json *config,
                                 tn_picture_tokens *tokens);

/* Reads every picture of the record, and puts as many tokens as it has in the place of its placeholder; `spans`
 * too where `with_spans`. Paths are relative to the folder of `file`. Errors: those of tn_picture_open;
 * TN_BAD_DATA where placeholders and pictures differ in number. */
tn_status tn_pictures_expand(const tn_picture_tokens *tokens, const tn_record *record, const char *file,
                             bool with_spans, tn_encoding *out);
/* Shortens to `most` tokens, and further, so that no picture is cut through; forgets the pictures behind. */
void tn_pictures_cut(tn_encoding *out, int64_t most);
/* Takes the labels of image tokens and those around them. */
void tn_pictures_silence(const tn_picture_tokens *tokens, tn_encoding *out);

/* Rope positions of a sample, [length] each. A text counts on in all three; in a picture the
 * frame stands still, row and column count from there, and the text behind goes on after the larger of the two
 * (transformers: get_rope_index). */
void tn_picture_positions(const tn_sample *sample, int32_t *frame, int32_t *row, int32_t *column);

#endif

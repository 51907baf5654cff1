/* record_pictures.h: where the pictures of a record stand in its conversation. Told are OpenAI's parts
 * ({"type": "image"} or "image_url"), with a path of their own or the next of the record's "images";
 * LLaMA-Factory's <image> in a text beside "images"; and TRL's "images" without any place, which open the first
 * question.
 */
#ifndef TN_DATA_RECORD_PICTURES_H
#define TN_DATA_RECORD_PICTURES_H

#include "data/records.h"

/* Puts a part {"type": "image"} into the messages of `out`, a chat made of `record`, for every picture, and
 * their paths, in that order, beside it. What is new lives in the arena. Errors: TN_BAD_DATA (more places than
 * pictures, or fewer), TN_USAGE (addresses, video). */
tn_status tn_record_place_pictures(tn_arena *arena, const tn_json *record, tn_record *out);

#endif

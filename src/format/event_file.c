/* event_file.c: writes TensorBoard's event files: messages of tensorflow/core/util/event.proto and
 * framework/summary.proto, each in a frame of TFRecord: its length in 8 bytes, the masked CRC-32C of those, the
 * message, and the masked CRC-32C of it, all little-endian. Fields (number: type):
 *
 *   Event    1: double wall time, 2: int64 step, 3: string version, 5: Summary, 7: SessionLog
 *   Summary  1: Value, repeated: 1: string tag, 2: float
 *   SessionLog  1: status, of which 1 (start) makes a reader forget what it had from that step on
 */
#include "format/event_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"

struct tn_event_file {
    FILE *file;
    char path[4096];
};

enum { VARINT = 0, EIGHT_BYTES = 1, BYTES = 2, FOUR_BYTES = 5 /* how a field is written */ };

/* ---- Protocol buffers -------------------------------------------------------------------------------- */

static void put_little(tn_str *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) tn_str_putc(out, (char)((value >> 8 * i) & 0xFF));
}

static void put_varint(tn_str *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) tn_str_putc(out, (char)((value & 0x7F) | 0x80));
    tn_str_putc(out, (char)value);
}

static void put_key(tn_str *out, int field, int kind) { put_varint(out, (uint64_t)(field << 3 | kind)); }

static void put_bytes(tn_str *out, int field, const char *bytes, int64_t length) {
    put_key(out, field, BYTES);
    put_varint(out, (uint64_t)length);
    tn_str_add(out, bytes, length);
}

static void put_message(tn_str *out, int field, const tn_str *message) {
    put_bytes(out, field, tn_str_text(message), message->length);
    out->failed = out->failed || message->failed;
}

static void put_double(tn_str *out, int field, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(out, field, EIGHT_BYTES);
    put_little(out, bits, 8);
}

static void put_float(tn_str *out, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(out, field, FOUR_BYTES);
    put_little(out, bits, 4);
}

static void put_integer(tn_str *out, int field, int64_t value) {
    put_key(out, field, VARINT);
    put_varint(out, (uint64_t)value);
}

/* ---- Frames ------------------------------------------------------------------------------------------ */

/* CRC-32C (Castagnoli), rotated and shifted as TFRecord has it. */
static uint32_t masked_crc(const char *bytes, int64_t length) {
    uint32_t crc = 0xFFFFFFFF;
    for (int64_t i = 0; i < length; i++) {
        crc ^= (unsigned char)bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78 : 0);
    }
    crc = ~crc;
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8;
}

static void begin_event(tn_str *event, int64_t step) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    put_double(event, 1, (double)now.tv_sec + (double)now.tv_nsec * 1e-9);
    if (step) put_integer(event, 2, step);
}

/* Writes the event in its frame, and frees it. */
static tn_status append(tn_event_file *f, tn_str *event) {
    tn_str frame = {0};
    tn_status status;
    put_little(&frame, (uint64_t)event->length, 8);
    put_little(&frame, masked_crc(tn_str_text(&frame), 8), 4);
    tn_str_add(&frame, tn_str_text(event), event->length);
    put_little(&frame, masked_crc(tn_str_text(event), event->length), 4);
    frame.failed = frame.failed || event->failed;
    status = tn_str_check(&frame, "an event of TensorBoard");
    if (status == TN_OK &&
        (fwrite(frame.data, 1, (size_t)frame.length, f->file) != (size_t)frame.length || fflush(f->file) != 0))
        status = tn_fail_errno("write", f->path);
    tn_str_free(&frame);
    tn_str_free(event);
    return status;
}

/* ---- Files ------------------------------------------------------------------------------------------- */

/* events.out.tfevents.SECONDS.HOST.PROCESS.COUNT: TensorBoard reads the files of a folder in the order of their
 * names. */
static tn_status create(tn_event_file *f, const char *directory) {
    char host[64] = "host";
    gethostname(host, sizeof host - 1);
    for (int i = 0; i < 1000; i++) {
        snprintf(f->path, sizeof f->path, "%s/events.out.tfevents.%010lld.%s.%lld.%d", directory,
                 (long long)time(NULL), host, (long long)getpid(), i);
        f->file = fopen(f->path, "wbxe");
        if (f->file || errno != EEXIST) break;
    }
    return f->file ? TN_OK : tn_fail_errno("write", f->path);
}

tn_status tn_event_file_open(const char *directory, int64_t last, tn_event_file **file) {
    static const char version[] = "brain.Event:2";
    tn_str event = {0}, session = {0};
    tn_event_file *f;
    tn_status status;
    *file = NULL;
    TN_TRY(tn_alloc(&f, 1, sizeof *f, "an event file"));
    *file = f;
    TN_TRY(tn_make_directories(directory));
    TN_TRY(create(f, directory));
    begin_event(&event, 0);
    put_bytes(&event, 3, version, (int64_t)strlen(version));
    TN_TRY(append(f, &event));
    begin_event(&event, last + 1);
    put_integer(&session, 1, 1);
    put_message(&event, 7, &session);
    status = append(f, &event);
done:
    tn_str_free(&session);
    if (status != TN_OK) tn_event_file_close(*file), *file = NULL;
    return status;
}

tn_status tn_event_file_add(tn_event_file *f, int64_t step, const tn_scalar *scalars, int count) {
    tn_str event = {0}, summary = {0};
    for (int i = 0; i < count; i++) {
        tn_str value = {0};
        put_bytes(&value, 1, scalars[i].tag, (int64_t)strlen(scalars[i].tag));
        put_float(&value, 2, (float)scalars[i].value);
        put_message(&summary, 1, &value);
        tn_str_free(&value);
    }
    begin_event(&event, step);
    put_message(&event, 5, &summary);
    tn_str_free(&summary);
    return append(f, &event);
}

void tn_event_file_close(tn_event_file *f) {
    if (f && f->file) fclose(f->file);
    free(f);
}

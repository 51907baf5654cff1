/* team.c: exchanges over the star of links.h, and the sum of gradients.
 *
 * A message is a header and what it announces. A rank that fails sends, in place of whatever it owes, a header
 * with its status and then its message and remedy; rank 0 passes the status on to everybody. So every wait is
 * for the next header, and looks beside it whether somebody else is gone.
 *
 * The sockets' sum: rank 0 adds the others' chunks to its own in the order of ranks and sends the result, so
 * that neither timing nor who computes has a part in it. NCCL's (op/cuda/nccl.c) is a ring, whose order is as
 * fixed.
 */
#include "train/team.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"

enum { CHUNK = 1 << 20 /* floats */, LOOK = 200 /* milliseconds */, RENDEZVOUS = 120 /* seconds */ };
enum { TEXT = 2048 };

typedef enum message { RECORD = 1, VALUES } message;

typedef struct header {
    uint32_t magic, kind, status, bytes; /* bytes: of a record, of a chunk, or of a failure's two texts */
} header;
static const uint32_t magic = 0x746E3031;

/* ---- Failures ------------------------------------------------------------------------------------- */

static bool send_header(tn_team *t, int peer, message kind, tn_status status, int64_t bytes) {
    header h = {magic, (uint32_t)kind, (uint32_t)status, (uint32_t)bytes};
    return tn_links_send(&t->links, peer, &h, (int64_t)sizeof h);
}

/* Rank 0 tells everybody. */
static void spread(tn_team *t, tn_status status) {
    for (int peer = 1; peer < t->world; peer++) (void)send_header(t, peer, RECORD, status, 0);
    t->over = true;
}

/* Another rank tells rank 0, with its words, two strings one behind the other. Where rank 0 has failed in the
 * same way before, it has said so already. */
static void confess(tn_team *t, tn_status status) {
    header theirs = {0};
    char texts[2 * TEXT];
    int length = snprintf(texts, TEXT, "%s", tn_error_message());
    if (length >= TEXT) length = TEXT - 1;
    int more = snprintf(texts + length + 1, TEXT, "%s", tn_error_remedy());
    if (more >= TEXT) more = TEXT - 1;
    const int64_t bytes = length + more + 2;
    t->over = true;
    const bool sent = send_header(t, 0, RECORD, status, bytes) && tn_links_send(&t->links, 0, texts, bytes);
    if (sent ||
        (tn_links_peek(&t->links, 0, &theirs, (int64_t)sizeof theirs) > 0 && theirs.status == (uint32_t)status))
        tn_fail(status, "%s", ""); /* rank 0 says it */
}

/* Rank 0 hears such a thing, other ranks that it was heard (without words). */
static tn_status hear(tn_team *t, int peer, const header *h) {
    char texts[2 * TEXT + 1] = "";
    tn_status status = (tn_status)h->status;
    t->lost = true;
    if (t->rank > 0) {
        t->over = true;
        return tn_fail(status, "%s", "");
    }
    if (h->bytes > 0 && h->bytes < sizeof texts &&
        tn_links_receive(&t->links, peer, texts, (int64_t)h->bytes, 0)) {
        tn_fail(status, "rank %d: %s", peer, texts);
        const char *remedy = texts + strlen(texts) + 1;
        if (remedy < texts + h->bytes && *remedy) tn_remedy("%s", remedy);
    } else tn_fail(status, "rank %d failed", peer);
    spread(t, status);
    return status;
}

static tn_status gone(tn_team *t, int peer) {
    t->lost = true;
    tn_fail(TN_FAILED, "rank %d of %d is gone: its process, machine or connection ended without a word", peer,
            t->world);
    tn_remedy(
        "see what it or the system said last (out of memory, killed?), then continue with "
        "--resume_from_checkpoint auto");
    if (t->rank == 0) spread(t, TN_FAILED);
    t->over = true;
    return TN_FAILED;
}

/* Has `peer` failed or gone? What else it sent stays where it is. */
static tn_status look(tn_team *t, int peer) {
    header h;
    int there = tn_links_peek(&t->links, peer, &h, (int64_t)sizeof h);
    if (there < 0) return gone(t, peer);
    if (there == 0 || h.status == TN_OK) return TN_OK;
    if (!tn_links_receive(&t->links, peer, &h, (int64_t)sizeof h, 0)) return gone(t, peer);
    return hear(t, peer, &h);
}

static tn_status look_at_all(tn_team *t) {
    tn_status status = TN_OK;
    for (int peer = t->rank == 0 ? 1 : 0; status == TN_OK && peer < (t->rank == 0 ? t->world : 1); peer++)
        status = look(t, peer);
    return status;
}

/* Waits for the header of `peer`'s next message, which must be of this kind and size. */
static tn_status expect(tn_team *t, int peer, message kind, int64_t bytes) {
    header h;
    int there;
    while ((there = tn_links_peek(&t->links, peer, &h, (int64_t)sizeof h)) == 0) {
        tn_status status = look_at_all(t);
        if (status != TN_OK) return status;
        tn_links_pause(&t->links, peer, LOOK);
    }
    if (there < 0 || !tn_links_receive(&t->links, peer, &h, (int64_t)sizeof h, 0)) return gone(t, peer);
    if (h.magic == magic && h.status != TN_OK) return hear(t, peer, &h);
    if (h.magic == magic && h.kind == (uint32_t)kind && h.bytes == (uint32_t)bytes) return TN_OK;
    tn_fail(TN_FAILED, "rank %d and rank %d are at different places of the run", peer, t->rank);
    return tn_remedy("all processes must be of one build of tenon");
}

/* ---- Records -------------------------------------------------------------------------------------- */

static tn_status receive(tn_team *t, int peer, message kind, void *bytes, int64_t length) {
    tn_status status = expect(t, peer, kind, length);
    if (status != TN_OK) return status;
    return tn_links_receive(&t->links, peer, bytes, length, 0) ? TN_OK : gone(t, peer);
}

/* A failed send says nothing yet: the other end may have told why before it closed. */
static tn_status give(tn_team *t, int peer, message kind, const void *bytes, int64_t length) {
    if (send_header(t, peer, kind, TN_OK, length) && tn_links_send(&t->links, peer, bytes, length))
        return TN_OK;
    tn_status status = look(t, peer);
    return status != TN_OK ? status : gone(t, peer);
}

tn_status tn_team_gather(tn_team *t, tn_status own, const void *mine, int64_t bytes, void *all) {
    tn_status status = TN_OK;
    if (t->world <= 1 || t->over || own != TN_OK) {
        if (own == TN_OK && !t->over) memcpy(all, mine, (size_t)bytes);
        else if (t->world > 1 && !t->over && t->rank == 0) spread(t, own);
        else if (t->world > 1 && !t->over) confess(t, own);
        return own != TN_OK ? own : t->over ? TN_FAILED : TN_OK;
    }
    if (t->rank > 0) {
        TN_TRY(give(t, 0, RECORD, mine, bytes));
        status = receive(t, 0, RECORD, all, bytes * t->world);
        goto done;
    }
    memcpy(all, mine, (size_t)bytes);
    for (int peer = 1; peer < t->world; peer++)
        TN_TRY(receive(t, peer, RECORD, (char *)all + bytes * peer, bytes));
    for (int peer = 1; peer < t->world; peer++) TN_TRY(give(t, peer, RECORD, all, bytes * t->world));
done:
    return status;
}

tn_status tn_team_meet(tn_team *t, tn_status status) {
    char nothing = 0, *all;
    if (t->world <= 1) return status;
    tn_status memory = tn_alloc(&all, t->world, 1, "ranks");
    status = tn_team_gather(t, status != TN_OK ? status : memory, &nothing, 1, all);
    free(all);
    return status;
}

tn_status tn_team_any(tn_team *t, bool *flag) {
    bool *all;
    if (t->world <= 1) return TN_OK;
    tn_status status = tn_alloc(&all, t->world, (int64_t)sizeof *all, "ranks");
    if (status != TN_OK) return status;
    status = tn_team_gather(t, TN_OK, flag, (int64_t)sizeof *flag, all);
    for (int i = 0; status == TN_OK && i < t->world; i++) *flag = *flag || all[i];
    free(all);
    return status;
}

tn_status tn_team_same(tn_team *t, const char *what, const char *value) {
    char mine[64], *all;
    if (t->world <= 1) return TN_OK;
    tn_status status = tn_alloc(&all, t->world, (int64_t)sizeof mine, "ranks");
    if (status != TN_OK) return status;
    memset(mine, 0, sizeof mine);
    snprintf(mine, sizeof mine, "%s", value);
    status = tn_team_gather(t, TN_OK, mine, (int64_t)sizeof mine, all);
    for (int i = 1; status == TN_OK && i < t->world; i++) {
        const char *theirs = all + (int64_t)sizeof mine * i;
        if (strcmp(all, theirs) == 0) continue;
        t->over = true; /* everybody sees it */
        status = tn_fail(TN_USAGE, "rank %d has another %s than rank 0: %s, not %s", i, what, theirs, all);
        tn_remedy("all processes of a run need the same command, files and kind of device");
        if (t->rank > 0) tn_fail(status, "%s", "");
    }
    free(all);
    return status;
}

/* ---- Gradients ------------------------------------------------------------------------------------ */

/* Until what the device was given is over: its library would wait for a dead rank for ever. */
static tn_status wait_for_device(tn_team *t) {
    const struct timespec pause = {.tv_nsec = 50 * 1000};
    tn_status status;
    for (bool over = false;;) {
        TN_TRY(t->reducer->poll(t->device, &over));
        if (over) return TN_OK;
        TN_TRY(look_at_all(t));
        nanosleep(&pause, NULL);
    }
done:
    t->reducer->leave(t->device);
    t->reducer = NULL;
    return status;
}

static tn_status sum_on_device(tn_team *t, int64_t count, float *values) {
    tn_status status = t->reducer->sum(t->device, count, values);
    return status == TN_OK ? wait_for_device(t) : status;
}

static tn_status add_others(tn_team *t, int64_t count) {
    tn_status status = TN_OK;
    for (int peer = 1; peer < t->world; peer++) {
        TN_TRY(receive(t, peer, VALUES, t->theirs, count * (int64_t)sizeof(float)));
        for (int64_t i = 0; i < count; i++) t->chunk[i] += t->theirs[i];
    }
    for (int peer = 1; peer < t->world; peer++)
        TN_TRY(give(t, peer, VALUES, t->chunk, count * (int64_t)sizeof(float)));
done:
    return status;
}

static tn_status sum_over_sockets(tn_team *t, int64_t count, float *values) {
    const tn_backend *backend = t->device->backend;
    tn_status status = TN_OK;
    for (int64_t first = 0; first < count; first += CHUNK) {
        const int64_t n = count - first < CHUNK ? count - first : CHUNK, bytes = n * (int64_t)sizeof(float);
        TN_TRY(backend->download(t->device, t->chunk, values + first, bytes));
        if (t->rank == 0) TN_TRY(add_others(t, n));
        else {
            TN_TRY(give(t, 0, VALUES, t->chunk, bytes));
            TN_TRY(receive(t, 0, VALUES, t->chunk, bytes));
        }
        TN_TRY(backend->upload(t->device, values + first, t->chunk, bytes));
    }
done:
    return status;
}

tn_status tn_team_sum(tn_team *t, int64_t count, float *values) {
    if (t->world <= 1) return TN_OK;
    return t->reducer ? sum_on_device(t, count, values) : sum_over_sockets(t, count, values);
}

/* ---- From meeting to parting ----------------------------------------------------------------------- */

static double patience(void) {
    const char *text = getenv("TENON_RENDEZVOUS_SECONDS");
    int64_t seconds;
    bool good = text && tn_parse_integer(text, (int64_t)strlen(text), &seconds) && seconds > 0;
    return good ? (double)seconds : RENDEZVOUS;
}

tn_status tn_team_open(const tn_hooks *hooks, tn_team *t) {
    tn_meeting meeting;
    *t = (tn_team){.world = 1};
    tn_status status = tn_ranks_read(&meeting.ranks);
    if (status != TN_OK || meeting.ranks.world == 1) return status;
    status = tn_meeting_read(&meeting);
    if (status == TN_OK) status = tn_links_open(&meeting, patience(), hooks, &t->links);
    if (status == TN_OK) t->rank = meeting.ranks.rank, t->world = meeting.ranks.world;
    return status;
}

/* The library sums where every rank has one. */
static tn_status agree_on_reducer(tn_team *t, const tn_reducer *ours) {
    char present = (char)(ours && ours->present()), *all, id[TN_REDUCER_ID] = {0}, *ids;
    tn_status status;
    TN_TRY(tn_alloc(&all, t->world, 1 + TN_REDUCER_ID, "ranks"));
    ids = all + t->world;
    status = tn_team_gather(t, TN_OK, &present, 1, all);
    for (int i = 0; status == TN_OK && i < t->world; i++) present = (char)(present && all[i]);
    if (status == TN_OK && ours && present) {
        if (t->rank == 0) status = ours->name(t->device, id);
        status = tn_team_gather(t, status, id, TN_REDUCER_ID, ids);
        if (status == TN_OK) status = ours->join(t->device, ids, t->rank, t->world);
        if (status == TN_OK) t->reducer = ours, status = wait_for_device(t);
    } else if (status == TN_OK && ours && t->rank == 0)
        tn_warn("NCCL (libnccl.so.2) is not on every machine: gradients go through host memory and sockets");
    free(all);
done:
    return status;
}

tn_status tn_team_enter(tn_team *t, tn_device *device) {
    tn_status status = TN_OK;
    t->device = device;
    if (t->world <= 1) return TN_OK;
    TN_TRY(agree_on_reducer(t, device->backend->reducer));
    if (t->reducer) return TN_OK;
    TN_TRY(tn_alloc(&t->chunk, CHUNK, (int64_t)sizeof *t->chunk, "gradients"));
    status = tn_alloc(&t->theirs, CHUNK, (int64_t)sizeof *t->theirs, "gradients");
done:
    return status;
}

/* Rank 0 says nothing more: only the end of its connection is waited for, whatever lies before it. */
static void wait_for_rank_0(tn_team *t) {
    char rest[4096];
    while (tn_links_receive(&t->links, 0, rest, 1, 0)) {
    }
}

void tn_team_close(tn_team *t, tn_status status) {
    if (t->world > 1 && status != TN_OK && !t->over) {
        if (t->rank == 0) spread(t, status);
        else confess(t, status);
    }
    if (t->reducer) t->reducer->leave(t->device);
    if (t->world > 1 && t->rank > 0) wait_for_rank_0(t);
    tn_links_close(&t->links);
    free(t->chunk);
    free(t->theirs);
    *t = (tn_team){0};
}

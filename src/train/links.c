/* links.c: the rendezvous and the messages.
 *
 * Rank 0 listens at the meeting's port, or the first free one of the few behind it; the others try them in
 * turn. Both sides show who they are (a greeting), so that a port where somebody else listens, or another run
 * of tenon, is passed over. Who is welcome says once more that he is there: one who waited too long behind a
 * silent stranger has hung up meanwhile, tries again, and must not be counted by what he left. The bytes of
 * greetings and messages are this machine's own: all processes of a run are of one kind.
 */
#include "train/links.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/thread.h"

enum { PORTS = 16, PAUSE = 100 /* milliseconds between two looks */, POLITE = 2 /* seconds for a greeting */ };

enum { WELCOME = 1, ANOTHER_RUN, ANOTHER_WORLD, RANK_TAKEN }; /* verdicts */

typedef struct greeting {
    char magic[8];
    uint64_t run;
    int32_t rank, world, verdict, unused;
} greeting;
static const char magic[8] = "tenon/2\n", here[1] = {1};

/* ---- Messages --------------------------------------------------------------------------------------- */

static void hang_up(tn_links *l, int peer) {
    if (l->sockets[peer] >= 0) close(l->sockets[peer]);
    l->sockets[peer] = -1;
}

/* Keeps a machine that vanished from being waited for, which closes nothing. */
static void tune(int fd) {
    const int on = 1, idle = 30, interval = 10, probes = 3;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static bool send_all(int fd, const void *bytes, int64_t length) {
    for (const char *at = bytes; length > 0;) {
        ssize_t sent = send(fd, at, (size_t)length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        at += sent, length -= sent;
    }
    return true;
}

static bool receive_all(int fd, void *bytes, int64_t length, double seconds) {
    const double end = tn_seconds() + seconds;
    for (char *at = bytes; length > 0;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        double left = end - tn_seconds();
        if (seconds > 0 && left <= 0) return false;
        int ready = poll(&wait, 1, seconds > 0 ? (int)(left * 1000) + 1 : -1);
        if (ready < 0 && errno != EINTR) return false;
        if (ready <= 0) continue;
        ssize_t got = recv(fd, at, (size_t)length, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got, length -= got;
    }
    return true;
}

bool tn_links_send(tn_links *l, int peer, const void *bytes, int64_t length) {
    return l->sockets[peer] >= 0 && send_all(l->sockets[peer], bytes, length);
}

void tn_links_pause(const tn_links *l, int peer, int milliseconds) {
    struct pollfd wait = {.fd = l->sockets[peer], .events = POLLIN};
    if (wait.fd >= 0) poll(&wait, 1, milliseconds);
}

bool tn_links_receive(tn_links *l, int peer, void *bytes, int64_t length, double seconds) {
    if (l->sockets[peer] >= 0 && receive_all(l->sockets[peer], bytes, length, seconds)) return true;
    hang_up(l, peer);
    return false;
}

int tn_links_peek(tn_links *l, int peer, void *bytes, int64_t length) {
    if (l->sockets[peer] < 0) return -1;
    ssize_t got = recv(l->sockets[peer], bytes, (size_t)length, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
    return got == 0 ? -1 : got == length;
}

void tn_links_close(tn_links *l) {
    for (int i = 0; l->sockets && i < (l->rank == 0 ? l->world : 1); i++) hang_up(l, i);
    free(l->sockets);
    *l = (tn_links){0};
}

/* ---- Rank 0 ----------------------------------------------------------------------------------------- */

static tn_status interrupted(const tn_hooks *hooks) {
    if (!hooks || !hooks->should_stop || !hooks->should_stop(hooks->user)) return TN_OK;
    tn_fail(TN_INTERRUPTED, "interrupted before the first step");
    return tn_remedy("nothing was trained; give the same command again");
}

static bool is_loopback(const char *host) {
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0;
}

static tn_status listen_at(const tn_meeting *m, int *listener, int *port) {
    const in_addr_t from = is_loopback(m->host) ? INADDR_LOOPBACK : INADDR_ANY;
    const int on = 1;
    for (*port = m->port; *port < m->port + PORTS; ++*port) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
        address.sin_addr.s_addr = htonl(from);
        *listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (*listener < 0) break;
        (void)setsockopt(*listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(*listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(*listener, 128) == 0)
            return TN_OK;
        close(*listener);
        *listener = -1;
    }
    tn_fail(TN_FAILED, "rank 0 cannot listen at port %d nor at the %d behind it: %s", m->port, PORTS - 1,
            strerror(errno));
    return tn_remedy("set MASTER_PORT to a free one");
}

/* Who is at the door? Someone of another run, or no process of tenon's, is sent away without a word. */
static tn_status greet(const tn_meeting *m, tn_links *l, int fd, int *present) {
    greeting theirs, ours = {.run = m->run, .world = l->world, .verdict = WELCOME};
    memcpy(ours.magic, magic, sizeof magic);
    bool known =
        receive_all(fd, &theirs, sizeof theirs, POLITE) && memcmp(theirs.magic, magic, sizeof magic) == 0;
    if (known && theirs.run != m->run) ours.verdict = ANOTHER_RUN;
    else if (known && theirs.world != l->world) ours.verdict = ANOTHER_WORLD;
    else if (known && (theirs.rank < 1 || theirs.rank >= l->world || l->sockets[theirs.rank] >= 0))
        ours.verdict = RANK_TAKEN;
    char still[sizeof here];
    if (!known || !send_all(fd, &ours, sizeof ours) || ours.verdict == ANOTHER_RUN ||
        (ours.verdict == WELCOME && !receive_all(fd, still, sizeof still, POLITE))) {
        close(fd);
        return TN_OK;
    }
    if (ours.verdict == WELCOME) {
        tune(fd);
        l->sockets[theirs.rank] = fd;
        ++*present;
        return TN_OK;
    }
    close(fd);
    if (ours.verdict == ANOTHER_WORLD)
        tn_fail(TN_USAGE, "rank 0 belongs to a run of %d processes, and rank %d to one of %d", l->world,
                theirs.rank, theirs.world);
    else tn_fail(TN_USAGE, "there are two processes of rank %d", theirs.rank);
    return tn_remedy(
        "check how the processes are started: each needs a rank of its own, and one number of them");
}

static tn_status missing(const tn_links *l, int port, double seconds) {
    int first = 1, count = 0;
    for (int r = l->world - 1; r > 0; r--)
        if (l->sockets[r] < 0) first = r, count++;
    tn_fail(TN_FAILED, "%d of %d processes did not come within %g s (rank %d%s); rank 0 waited at port %d",
            count, l->world, seconds, first, count > 1 ? " the first of them" : "", port);
    return tn_remedy(
        "see whether they were started and what they say; TENON_RENDEZVOUS_SECONDS waits longer, and without "
        "the "
        "variables of a launcher (WORLD_SIZE and so on) this process runs alone");
}

static tn_status receive_all_ranks(const tn_meeting *m, double seconds, const tn_hooks *hooks, tn_links *l) {
    const double end = tn_seconds() + seconds;
    int listener = -1, port, present = 1;
    tn_status status;
    TN_TRY(listen_at(m, &listener, &port));
    while (present < l->world) {
        struct pollfd wait = {.fd = listener, .events = POLLIN};
        TN_TRY(interrupted(hooks));
        if (tn_seconds() > end) {
            status = missing(l, port, seconds);
            goto done;
        }
        if (poll(&wait, 1, PAUSE) <= 0) continue;
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0) TN_TRY(greet(m, l, fd, &present));
    }
done:
    if (listener >= 0) close(listener);
    return status;
}

/* ---- The others ------------------------------------------------------------------------------------- */

/* A connection to the port, or -1; *unknown is the resolver's error where the host has no address, else 0. */
static int reach(const tn_meeting *m, int port, int *unknown) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    char service[16];
    int fd = -1;
    snprintf(service, sizeof service, "%d", port);
    *unknown = getaddrinfo(m->host, service, &hints, &found);
    if (*unknown) return -1;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) continue;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

/* `fd` is rank 0 of this run (*verdict WELCOME), refuses us (another verdict), or is somebody else (0). */
static void introduce(const tn_meeting *m, int fd, int32_t *verdict) {
    greeting theirs, ours = {.run = m->run, .rank = m->ranks.rank, .world = m->ranks.world};
    memcpy(ours.magic, magic, sizeof magic);
    *verdict = 0;
    if (!send_all(fd, &ours, sizeof ours) || !receive_all(fd, &theirs, sizeof theirs, POLITE)) return;
    if (memcmp(theirs.magic, magic, sizeof magic) == 0 && theirs.verdict != ANOTHER_RUN)
        *verdict = theirs.verdict;
    if (*verdict == WELCOME && !send_all(fd, here, sizeof here)) *verdict = 0;
}

static tn_status find_rank_0(const tn_meeting *m, double seconds, const tn_hooks *hooks, tn_links *l) {
    const double end = tn_seconds() + seconds;
    const struct timespec pause = {.tv_nsec = PAUSE * 1000000L};
    tn_status status;
    int unknown = 0;
    do {
        for (int port = m->port; port < m->port + PORTS; port++) {
            int32_t verdict;
            int fd = reach(m, port, &unknown);
            if (fd < 0) continue;
            introduce(m, fd, &verdict);
            if (verdict == WELCOME) {
                tune(fd);
                l->sockets[0] = fd;
                return TN_OK;
            }
            close(fd);
            if (verdict == ANOTHER_WORLD || verdict == RANK_TAKEN) {
                tn_fail(TN_USAGE, "rank 0 at %s:%d does not expect rank %d of %d", m->host, port, l->rank,
                        l->world);
                return tn_remedy("check how the processes are started: each needs a rank of its own");
            }
        }
        status = interrupted(hooks);
        if (status != TN_OK) return status;
        nanosleep(&pause, NULL);
    } while (tn_seconds() < end);
    if (unknown) {
        tn_fail(TN_FAILED, "rank %d found no rank 0 within %g s: MASTER_ADDR %s: %s", l->rank, seconds, m->host,
                gai_strerror(unknown));
        return tn_remedy("MASTER_ADDR is rank 0's host by a name or an IPv4 address that this machine knows");
    }
    tn_fail(TN_FAILED, "rank %d found no rank 0 at %s, ports %d to %d, within %g s", l->rank, m->host, m->port,
            m->port + PORTS - 1, seconds);
    return tn_remedy(
        "see whether rank 0 was started and what it says; MASTER_ADDR and MASTER_PORT say where it is, "
        "TENON_RENDEZVOUS_SECONDS waits longer");
}

tn_status tn_links_open(const tn_meeting *m, double seconds, const tn_hooks *hooks, tn_links *l) {
    *l = (tn_links){.rank = m->ranks.rank, .world = m->ranks.world};
    tn_status status = tn_alloc(&l->sockets, l->world, (int64_t)sizeof *l->sockets, "sockets");
    if (status != TN_OK) return status;
    for (int i = 0; i < l->world; i++) l->sockets[i] = -1;
    status = l->rank == 0 ? receive_all_ranks(m, seconds, hooks, l) : find_rank_0(m, seconds, hooks, l);
    if (status != TN_OK) tn_links_close(l);
    return status;
}

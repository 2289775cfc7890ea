#define _GNU_SOURCE /* sched_getaffinity */

#include "comm/topology.h"
#include "comm/ranges.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LIST_BYTES = 256 };

/* ---- sets of cores ---- */

lt_cores lt_cores_own(void) {
    lt_cores own;
    memset(&own, 0, sizeof own);
    if (sched_getaffinity(0, sizeof own, (cpu_set_t *)own.word) != 0) {
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        memset(&own, 0, sizeof own);
        for (long core = 0; core < online && core < LT_CORES; core++)
            own.word[core / LT_CORE_BITS] |= 1UL << (core % LT_CORE_BITS);
    }
    return own;
}

int lt_cores_count(const lt_cores *cores) {
    int count = 0;
    for (int i = 0; i < LT_CORE_WORDS; i++) count += __builtin_popcountl(cores->word[i]);
    return count;
}

static bool same_cores(const lt_cores *a, const lt_cores *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

static bool within(const lt_cores *part, const lt_cores *whole) {
    for (int i = 0; i < LT_CORE_WORDS; i++)
        if (part->word[i] & ~whole->word[i]) return false;
    return true;
}

static void cores_text(const lt_cores *cores, char *text, size_t size) {
    int numbers[LT_CORES], count = 0;
    for (int core = 0; core < LT_CORES; core++)
        if (cores->word[core / LT_CORE_BITS] >> (core % LT_CORE_BITS) & 1) numbers[count++] = core;
    lt_ranges_text(numbers, count, text, size);
}

/* ---- places ---- */

lt_status lt_topology_gather(const lt_grid *grid, int threads, lt_place *places) {
    lt_place *own = &places[grid->rank];
    memset(own, 0, sizeof *own);
    snprintf(own->host, sizeof own->host, "%s", grid->host);
    own->first = grid->host_first;
    own->threads = threads;
    own->cores = lt_cores_own();
    return lt_grid_all_gather(grid, own, places, sizeof *own);
}

/* The rank after `rank` on the same host; `ranks` where there is none. */
static int next_on_host(const lt_place *places, int ranks, int rank) {
    for (int other = rank + 1; other < ranks; other++)
        if (places[other].first == places[rank].first) return other;
    return ranks;
}

/* Whether the ranks of two hosts have the same cores one after another. */
static bool bound_alike(const lt_place *places, int ranks, int a, int b) {
    while (a < ranks && b < ranks && same_cores(&places[a].cores, &places[b].cores)) {
        a = next_on_host(places, ranks, a);
        b = next_on_host(places, ranks, b);
    }
    return a == ranks && b == ranks;
}

static bool is_first(const lt_place *places, int rank) {
    return places[rank].first == rank;
}

/* Appends as printf() does; what does not fit is cut. */
__attribute__((format(printf, 4, 5))) static void append(char *text, size_t size, size_t *used,
                                                         const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(text + *used, size - *used, format, arguments);
    va_end(arguments);
    *used = *used + (size_t)length < size ? *used + (size_t)length : size - 1;
}

/* "0-3 | 4-7 (shared by 2)": each set of cores of a host's ranks, once. */
static void append_bindings(const lt_place *places, int ranks, int first, char *text, size_t size,
                            size_t *used) {
    for (int rank = first, sets = 0; rank < ranks; rank = next_on_host(places, ranks, rank)) {
        int sharing = 0, lowest = ranks;
        for (int other = first; other < ranks; other = next_on_host(places, ranks, other)) {
            if (!same_cores(&places[other].cores, &places[rank].cores)) continue;
            if (lowest == ranks) lowest = other;
            sharing++;
        }
        if (lowest < rank) continue;
        char list[LIST_BYTES];
        cores_text(&places[rank].cores, list, sizeof list);
        append(text, size, used, "%s%s", sets++ > 0 ? " | " : "", list);
        if (sharing > 1) append(text, size, used, " (shared by %d)", sharing);
    }
}

/* Whether a host with a lower first rank is bound alike, so that its line names this one too. */
static bool is_told(const lt_place *places, int ranks, int first) {
    for (int other = 0; other < first; other++)
        if (is_first(places, other) && bound_alike(places, ranks, other, first)) return true;
    return false;
}

bool lt_topology_line(const lt_place *places, int ranks, int *next, char *text, size_t size) {
    const int first = *next;
    if (first >= ranks) return false;
    size_t used = 0;
    int hosts = 0, on_host = 0;
    char names[LIST_BYTES] = "";
    for (int other = first; other < ranks; other++) {
        if (!is_first(places, other) || !bound_alike(places, ranks, first, other)) continue;
        const size_t room = sizeof names - used, length = strlen(places[other].host);
        if (hosts++ == 0 || length + sizeof " ..." < room)
            append(names, sizeof names, &used, "%s%s", used > 0 ? " " : "", places[other].host);
        else if (used < sizeof names - 4 && strcmp(names + used - 3, "...") != 0)
            append(names, sizeof names, &used, " ...");
    }
    for (int rank = first; rank < ranks; rank = next_on_host(places, ranks, rank)) on_host++;
    used = 0;
    append(text, size, &used, "%s: %d rank%s%s on cores ", names, on_host, on_host == 1 ? "" : "s",
           hosts > 1 ? " each" : "");
    append_bindings(places, ranks, first, text, size, &used);
    do ++*next;
    while (*next < ranks && (!is_first(places, *next) || is_told(places, ranks, *next)));
    return true;
}

/* ---- warnings ---- */

/* The ranks on the host of `first` whose cores are within `whole`, into `members`; their threads. */
static int threads_within(const lt_place *places, int ranks, int first, const lt_cores *whole, char *members,
                          size_t size) {
    int threads = 0, numbers[256], count = 0;
    for (int rank = first; rank < ranks; rank = next_on_host(places, ranks, rank)) {
        if (!within(&places[rank].cores, whole)) continue;
        threads += places[rank].threads;
        if (count < 256) numbers[count++] = rank;
    }
    snprintf(members, size, "rank%s ", count == 1 ? "" : "s");
    lt_ranges_text(numbers, count, members + strlen(members), size - strlen(members));
    return threads;
}

/* Threads that may run on `whole` alone need that many cores. Enough for all cores of a host's ranks
 * together, and for those of each rank; launchers bind in no other ways. */
static bool is_short(const lt_place *places, int ranks, int first, const lt_cores *whole, char *text,
                     size_t size) {
    char members[LIST_BYTES], list[LIST_BYTES];
    const int threads = threads_within(places, ranks, first, whole, members, sizeof members);
    if (threads <= lt_cores_count(whole)) return false;
    cores_text(whole, list, sizeof list);
    snprintf(text, size, "%s on %s: %d threads on cores %s", members, places[first].host, threads, list);
    return true;
}

static bool host_is_short(const lt_place *places, int ranks, int first, char *text, size_t size) {
    lt_cores all;
    memset(&all, 0, sizeof all);
    for (int rank = first; rank < ranks; rank = next_on_host(places, ranks, rank)) {
        if (is_short(places, ranks, first, &places[rank].cores, text, size)) return true;
        for (int i = 0; i < LT_CORE_WORDS; i++) all.word[i] |= places[rank].cores.word[i];
    }
    return is_short(places, ranks, first, &all, text, size);
}

/* "; so on 3 more hosts" */
static void append_more(int more, const char *what, char *text, size_t size) {
    size_t used = strlen(text);
    if (more > 0) append(text, size, &used, "; and %d more %s%s", more, what, more == 1 ? "" : "s");
}

bool lt_topology_oversubscribed(const lt_place *places, int ranks, char *text, size_t size) {
    char scratch[2 * LIST_BYTES + 300];
    int found = 0;
    for (int first = 0; first < ranks; first++)
        if (is_first(places, first) && host_is_short(places, ranks, first, scratch, sizeof scratch) &&
            found++ == 0)
            snprintf(text, size, "%s", scratch);
    append_more(found - 1, "host", text, size);
    return found > 0;
}

bool lt_topology_tensor_crosses(const lt_place *places, int ranks, int tensor_ranks, char *text,
                                size_t size) {
    int found = 0;
    for (int first = 0; first + tensor_ranks <= ranks; first += tensor_ranks) {
        int other = first + 1;
        while (other < first + tensor_ranks && places[other].first == places[first].first) other++;
        if (other < first + tensor_ranks && found++ == 0)
            snprintf(text, size, "ranks %d-%d are on %s and %s", first, first + tensor_ranks - 1,
                     places[first].host, places[other].host);
    }
    append_more(found - 1, "group", text, size);
    return found > 0;
}

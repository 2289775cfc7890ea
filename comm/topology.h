/* Where the ranks run: the cores that each is bound to, in words for a person and for a warning.
 *
 * A core is a CPU as the kernel numbers them, a hardware thread where cores have several. What a launcher
 * binds a rank to is its affinity mask; control groups narrow it too.
 */
#ifndef LT_COMM_TOPOLOGY_H
#define LT_COMM_TOPOLOGY_H

#include "comm/grid.h"

enum { LT_CORES = 8192, LT_CORE_BITS = 8 * sizeof(unsigned long), LT_CORE_WORDS = LT_CORES / LT_CORE_BITS };

/* A set of cores. */
typedef struct lt_cores {
    unsigned long word[LT_CORE_WORDS];
} lt_cores;

/* One rank's place. */
typedef struct lt_place {
    char host[256];
    int first;   /* the lowest rank on this host */
    int threads; /* that compute */
    lt_cores cores;
} lt_place;

/* The cores that this process may run on, and how many they are. Local. */
lt_cores lt_cores_own(void);
int lt_cores_count(const lt_cores *cores);

/* Fills `places` [ranks] on every rank. `threads` are this rank's. Collective. */
lt_status lt_topology_gather(const lt_grid *grid, int threads, lt_place *places);

/* One line for hosts whose ranks are bound alike: "n1 n2: 2 ranks each on cores 0-3 | 4-7"; ranks of the same
 * cores are counted: "n1: 4 ranks on cores 0-7 (shared by 4)". Starts with the host of rank *next and moves
 * that on to the host of the line after it; false where none is left. Local. */
bool lt_topology_line(const lt_place *places, int ranks, int *next, char *text, size_t size);

/* Whether some host has fewer cores than threads that may use no others; `text` then says which ranks. Local.
 */
bool lt_topology_oversubscribed(const lt_place *places, int ranks, char *text, size_t size);

/* Whether some group of `tensor_ranks` neighbours lies on several hosts, whose network then carries every
 * layer of the model; `text` then says which. Local. */
bool lt_topology_tensor_crosses(const lt_place *places, int ranks, int tensor_ranks, char *text, size_t size);

#endif

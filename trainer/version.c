#include "trainer/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lt_version(void) {
    return LT_VERSION;
}

const char *lt_commit(void) {
    return LT_COMMIT;
}

const char *lt_build_options(void) {
    return LT_BUILD_OPTIONS;
}

/* Host names of all ranks, each once, in the order of ranks; cut with "..." where they do not fit. */
static lt_status join_hosts(const lt_grid *grid, char *text, size_t size) {
    const size_t width = sizeof grid->host;
    char *all = malloc(width * (size_t)grid->ranks);
    if (all == NULL) return lt_fail(LT_IO, "no memory for %d host names", grid->ranks);
    const lt_status status = lt_grid_all_gather(grid, grid->host, all, width);
    size_t used = 0;
    text[0] = '\0';
    for (int rank = 0; rank < grid->ranks && status == LT_OK; rank++) {
        const char *host = all + width * (size_t)rank;
        bool seen = false;
        for (int other = 0; other < rank && !seen; other++)
            seen = strcmp(all + width * (size_t)other, host) == 0;
        if (seen) continue;
        if (used + strlen(host) + 6 > size) {
            snprintf(text + used, size - used, "...");
            break;
        }
        used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? " " : "", host);
    }
    free(all);
    return status;
}

lt_status lt_provenance_fill(const lt_grid *grid, const lt_device *device, lt_provenance *provenance) {
    *provenance = (lt_provenance){.ranks = grid->ranks, .threads = device->threads};
    snprintf(provenance->version, sizeof provenance->version, "%s", lt_version());
    snprintf(provenance->commit, sizeof provenance->commit, "%s", lt_commit());
    snprintf(provenance->instruction_set, sizeof provenance->instruction_set, "%s", device->instruction_set);
    snprintf(provenance->blas_kernel, sizeof provenance->blas_kernel, "%s", device->blas_kernel);
    snprintf(provenance->mpi, sizeof provenance->mpi, "%s", grid->library);
    return join_hosts(grid, provenance->hosts, sizeof provenance->hosts);
}

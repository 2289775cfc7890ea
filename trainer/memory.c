#include "trainer/memory.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The number behind `key` at the start of a line of the file, or of its first line where `key` is "". */
static bool read_number(const char *path, const char *key, double *number) {
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    char line[256];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0) found = sscanf(line + strlen(key), "%lf", number) == 1;
    fclose(file);
    return found;
}

/* The names of one version's files. */
typedef struct version {
    const char *mount, *limit, *usage, *droppable;
} version;
static const version V1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                           "total_inactive_file "};
static const version V2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};

/* What the group in this folder has left. A limit of "max", or none (the root's), is no number. */
static double left_in(const char *folder, const version *v, double available) {
    char path[PATH_MAX + 64];
    double limit, usage, droppable = 0;
    snprintf(path, sizeof path, "%s/%s", folder, v->limit);
    if (!read_number(path, "", &limit)) return available;
    snprintf(path, sizeof path, "%s/%s", folder, v->usage);
    if (!read_number(path, "", &usage)) return available;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    read_number(path, v->droppable, &droppable);
    const double left = limit - usage + droppable;
    return left < available ? (left > 1 ? left : 1) : available;
}

/* The group of a line of proc/self/cgroup and those above it. */
static double left_in_groups(const char *root, const char *line, double available) {
    const char *first = strchr(line, ':'), *second = first == NULL ? NULL : strchr(first + 1, ':');
    if (second == NULL) return available;
    const version *v = NULL;
    if (strncmp(line, "0::", 3) == 0) v = &V2;
    if (strncmp(first, ":memory:", 8) == 0) v = &V1;
    if (v == NULL) return available;
    char folder[PATH_MAX];
    const int mounted = snprintf(folder, sizeof folder, "%s%s", root, v->mount);
    snprintf(folder + mounted, sizeof folder - (size_t)mounted, "%s", second + 1);
    for (char *end; (end = strrchr(folder + mounted, '/')) != NULL; *end = '\0')
        available = left_in(folder, v, available);
    return left_in(folder, v, available);
}

double lt_memory_available(const char *root) {
    char path[PATH_MAX], line[PATH_MAX];
    double kib, available = 0x1p63;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    const bool said = read_number(path, "MemAvailable:", &kib);
    if (said) available = 1024 * kib;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *groups = fopen(path, "re");
    while (groups != NULL && fgets(line, sizeof line, groups) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        available = left_in_groups(root, line, available);
    }
    if (groups != NULL) fclose(groups);
    return available < 0x1p62 ? available : 0;
}

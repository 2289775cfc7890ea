#include "comm/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where a plugin may lie, seen from the executable's folder. */
static const char *const folders[] = {"plugins", "../plugins", "../../plugins", "../lib/lazytrain"};

/* One that is there; false: none is. */
static bool find_plugin(const char *name, char path[PATH_MAX]) {
    const char *given = getenv("LAZYTRAIN_PLUGINS");
    if (given != NULL)
        return snprintf(path, PATH_MAX, "%s/%s.so", given, name) < PATH_MAX && access(path, R_OK) == 0;
    char executable[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", executable, sizeof executable - 1);
    if (length < 0) return false;
    executable[length] = '\0';
    char *slash = strrchr(executable, '/');
    if (slash == NULL) return false;
    *slash = '\0';
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (snprintf(path, PATH_MAX, "%s/%s/%s.so", executable, folders[i], name) < PATH_MAX &&
            access(path, R_OK) == 0)
            return true;
    return false;
}

static lt_status load(const char *name, const char *what, const void **table) {
    char path[PATH_MAX], symbol[64];
    if (!find_plugin(name, path))
        return lt_fail(LT_BAD_INPUT,
                       "%s needs the plugin %s.so, which this build of lazytrain lacks; `make deps all` says "
                       "what is missing and builds it (LAZYTRAIN_PLUGINS names another folder of plugins)",
                       what, name);
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    snprintf(symbol, sizeof symbol, "lt_%s_plugin", name);
    *table = object == NULL ? NULL : dlsym(object, symbol);
    if (*table == NULL)
        return lt_fail(LT_BAD_INPUT,
                       "%s needs the plugin '%s', which cannot be loaded: %s; `make` builds it "
                       "anew",
                       what, path, dlerror());
    return LT_OK;
}

lt_status lt_plugin_open(const char *name, const char *what, const void **table) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* dlerror's message is the last call's */
    pthread_mutex_lock(&lock);
    const lt_status status = load(name, what, table);
    pthread_mutex_unlock(&lock);
    return status;
}

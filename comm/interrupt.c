#include "comm/interrupt.h"

#include <stdatomic.h>
#include <stddef.h>

static const char *_Atomic interrupted_by;

void lt_interrupt(const char *name) {
    atomic_store(&interrupted_by, name);
}

lt_status lt_interrupt_check(const char *doing) {
    const char *name = atomic_load_explicit(&interrupted_by, memory_order_relaxed);
    if (name == NULL) return LT_OK;
    return lt_fail(LT_STOPPED, "%s while %s: leaving before the first step", name, doing);
}

bool lt_interrupted(void) {
    return atomic_load_explicit(&interrupted_by, memory_order_relaxed) != NULL;
}

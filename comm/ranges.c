#include "comm/ranges.h"

#include <stdio.h>

void lt_ranges_text(const int *numbers, int count, char *text, size_t size) {
    size_t used = 0;
    snprintf(text, size, "none");
    for (int first = 0, last; first < count; first = last + 1) {
        for (last = first; last + 1 < count && numbers[last + 1] == numbers[last] + 1;) last++;
        char range[32];
        const int length = last == first
                               ? snprintf(range, sizeof range, "%d", numbers[first])
                               : snprintf(range, sizeof range, "%d-%d", numbers[first], numbers[last]);
        if (used + 1 + (size_t)length + sizeof ",..." > size) {
            snprintf(text + used, size - used, "%s...", used > 0 ? "," : "");
            return;
        }
        used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? "," : "", range);
    }
}

/* Text as reports show it: in one line, whatever it holds. Internal to data/. */
#ifndef LT_DATA_PRINTED_H
#define LT_DATA_PRINTED_H

#include <stddef.h>
#include <stdio.h>

/* What stands between the quotes of a JSON string, without control characters, those of U+0080..U+009F
 * included; bytes that are not UTF-8 as they are. A text may come in parts that end with whole characters. */
void lt_print_escaped(const char *text, size_t bytes, FILE *out);

/* The same between quotes. */
void lt_print_string(const char *text, size_t bytes, FILE *out);

#endif

#include "data/printed.h"

void lt_print_escaped(const char *text, size_t bytes, FILE *out) {
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char byte = (unsigned char)text[i];
        if (byte == '\n')
            fputs("\\n", out);
        else if (byte < 0x20 || byte == 0x7f)
            fprintf(out, "\\u%04x", byte);
        else if (byte == 0xc2 && i + 1 < bytes && ((unsigned char)text[i + 1] & 0xe0) == 0x80)
            fprintf(out, "\\u%04x", (unsigned char)text[++i]);
        else if (byte == '"' || byte == '\\')
            fprintf(out, "\\%c", byte);
        else
            putc(byte, out);
    }
}

void lt_print_string(const char *text, size_t bytes, FILE *out) {
    putc('"', out);
    lt_print_escaped(text, bytes, out);
    putc('"', out);
}

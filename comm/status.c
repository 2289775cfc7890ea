#include "comm/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[LT_ERROR_MESSAGE_BYTES];

lt_status(lt_fail)(lt_status status, const char *format, ...) {
    /* Formatted aside: a caller that adds context passes the present message as an argument. */
    char text[LT_ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0) {
        snprintf(text, sizeof text, "(a message that could not be formatted: %.200s)", format);
    } else if ((size_t)length >= sizeof text) {
        static const char ellipsis[] = "...";
        memcpy(text + sizeof text - sizeof ellipsis, ellipsis, sizeof ellipsis);
    }
    memcpy(message, text, sizeof message);
    return status;
}

const char *lt_error_message(void) {
    return message;
}

/* The checksum of HDF5's structure, against the values that the author of the function publishes in its
 * source (lookup3.c, driver5), and against HDF5's own in every checkpoint that the tests write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "checkpoints/lookup3.h"

static void published_values(void **state) {
    (void)state;
    assert_int_equal(lt_lookup3((const unsigned char *)"", 0), 0xdeadbeef);
    assert_int_equal(lt_lookup3((const unsigned char *)"Four score and seven years ago", 30), 0x17770551);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

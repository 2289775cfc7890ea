#include "checkpoints/layout_driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

typedef struct layout_file {
    H5FD_t shared; /* HDF5's own fields come first */
    lt_layout_target *target;
    haddr_t allocated, end;
} layout_file;

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access_list, haddr_t most) {
    (void)name, (void)flags, (void)most;
    lt_layout_target *const *target = H5Pget_driver_info(access_list);
    layout_file *file = target ? calloc(1, sizeof *file) : NULL;
    if (!file) return NULL;
    file->target = *target;
    return &file->shared;
}

static herr_t driver_close(H5FD_t *file) {
    free(file);
    return 0;
}

static herr_t driver_query(const H5FD_t *file, unsigned long *flags) {
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA |
             H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t driver_get_allocated(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const layout_file *)file)->allocated;
}

static herr_t driver_set_allocated(H5FD_t *file, H5FD_mem_t type, haddr_t address) {
    (void)type;
    ((layout_file *)file)->allocated = address;
    return 0;
}

static haddr_t driver_get_end(const H5FD_t *file, H5FD_mem_t type) {
    (void)type;
    return ((const layout_file *)file)->end;
}

static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size,
                          void *buffer) {
    (void)type, (void)transfer;
    int descriptor = ((layout_file *)file)->target->descriptor;
    memset(buffer, 0, size);
    char *p = buffer;
    while (size > 0) {
        ssize_t n = pread(descriptor, p, size, (off_t)address);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) return 0; /* behind the end: zeros */
        p += n;
        size -= (size_t)n;
        address += (haddr_t)n;
    }
    return 0;
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size,
                           const void *buffer) {
    (void)transfer;
    layout_file *f = (layout_file *)file;
    if (address + size > f->end) f->end = address + size;
    if (type == H5FD_MEM_DRAW) return 0;
    const char *p = buffer;
    while (size > 0 && f->target->error == 0) {
        ssize_t n = pwrite(f->target->descriptor, p, size, (off_t)address);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            f->target->error = n < 0 ? errno : ENOSPC;
            return 0;
        }
        p += n;
        size -= (size_t)n;
        address += (haddr_t)n;
    }
    return 0;
}

static herr_t driver_truncate(H5FD_t *file, hid_t transfer, hbool_t closing) {
    (void)transfer, (void)closing;
    layout_file *f = (layout_file *)file;
    f->end = f->allocated;
    if (ftruncate(f->target->descriptor, (off_t)f->allocated) != 0 && f->target->error == 0)
        f->target->error = errno;
    return 0;
}

static const H5FD_class_t DRIVER = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)700, /* from the range left to programs, 512 and up */
#endif
    .name = "lazytrain_layout",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG, /* a failed close must not leave objects that HDF5 trips over at exit */
    .fapl_size = sizeof(lt_layout_target *),
    .open = driver_open,
    .close = driver_close,
    .query = driver_query,
    .get_eoa = driver_get_allocated,
    .set_eoa = driver_set_allocated,
    .get_eof = driver_get_end,
    .read = driver_read,
    .write = driver_write,
    .truncate = driver_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

herr_t lt_layout_driver_use(hid_t access_list, lt_layout_target *target) {
    static hid_t driver = -1;
    if (driver < 0 || H5Iget_type(driver) != H5I_VFL) driver = H5FDregister(&DRIVER);
    return driver < 0 ? -1 : H5Pset_driver(access_list, driver, &target);
}

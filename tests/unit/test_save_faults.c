/* A save in which each system call and each allocation fails in turn, once or from then on, each in a forked
 * copy of this process: the checkpoint before stays whole, the message is plain, the status right, and a
 * fault that passes is survived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "checkpoint_files.h"
#include "tests/fault/shim.h"

#include "comm/log.h"
#include "trainer/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HANGS_S = 60 };

static lt_run run;
static char folder[256];

typedef struct image {
    unsigned char *bytes;
    size_t size;
} image;
static image first, second; /* the checkpoints of steps 1 and 2 as an undisturbed save writes them */

/* What a child found out. */
typedef struct report {
    lt_status status;
    bool planned, judged;
    char message[LT_ERROR_MESSAGE_BYTES];
    long count;
} report;
static report *told; /* shared with the child */

static const char *in_folder(const char *name) {
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static image read_file(const char *name) {
    struct stat about;
    image read_image = {0};
    int file = open(in_folder(name), O_RDONLY);
    if (file < 0) return read_image;
    assert_int_equal(fstat(file, &about), 0);
    read_image.size = (size_t)about.st_size;
    read_image.bytes = malloc(read_image.size + 1);
    assert_int_equal(read(file, read_image.bytes, read_image.size), read_image.size);
    close(file);
    return read_image;
}

static bool holds(const char *name, const image *expected) {
    image found = read_file(name);
    bool same = found.bytes != NULL && found.size == expected->size &&
                memcmp(found.bytes, expected->bytes, found.size) == 0;
    free(found.bytes);
    return same;
}

static void at_step(int64_t step) {
    run.step = step;
    run.samples = 8 * step;
    run.tokens = 8 * 24 * step;
}

static int set_up(void **state) {
    (void)state;
    int argc = 0;
    char **argv = NULL;
    static char config[] = "model:\n  hidden_size: 24\n";
    if (lt_grid_open(&argc, &argv, &run.grid) != LT_OK) return -1;
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0); /* thousands of saves are synced */
    lt_log_set_rank(1); /* who is not rank 0 prints no warnings */
    run.model_options = (lt_model_options){.shape = test_shape(1),
                                           .sequence_length = 24,
                                           .micro_batch = 1,
                                           .training = true,
                                           .gradient_buffers = 1,
                                           .loss_slots = 1};
    test_folder(folder);
    run.config.checkpoint.dir = folder;
    run.config.checkpoint.keep = 1;
    run.config_text = config;
    if (lt_cpu_device_create(1, &run.device) != LT_OK ||
        lt_registry_create(&run.model_options.shape, &run.registry) != LT_OK ||
        lt_run_plan_saves(&run) != LT_OK ||
        lt_model_create(&run.model_options, run.device, &run.model) != LT_OK ||
        lt_model_initialise(run.model, 1) != LT_OK || lt_metrics_open(folder, 0, &run.metrics) != LT_OK)
        return -1;
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return told == MAP_FAILED ? -1 : 0;
}

static int tear_down(void **state) {
    (void)state;
    lt_metrics_close(run.metrics);
    lt_layout_free(run.layout);
    lt_model_destroy(run.model);
    lt_registry_destroy(&run.registry);
    run.device->ops->destroy(run.device);
    free(first.bytes);
    free(second.bytes);
    test_remove_folder(folder);
    lt_grid_close(&run.grid);
    return 0;
}

/* Runs `work` in a copy of this process, which ends like a program does; returns how it ended. */
static int apart(void (*work)(void *context), void *context) {
    int ended;
    memset(told, 0, sizeof *told);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(HANGS_S);
        work(context);
        exit(0);
    }
    assert_int_equal(waitpid(child, &ended, 0), child);
    return ended;
}

typedef struct fault_case {
    fault_kind kind;
    long number;
    int error;
    bool lasting;
} fault_case;

static void save_under_fault(void *context) {
    const fault_case *c = context;
    at_step(2);
    fault_arm(c->kind, c->number, c->error, c->lasting, folder);
    lt_fail(LT_OK, "%s", "");
    told->status = lt_run_save(&run);
    told->count = fault_disarm();
    snprintf(told->message, sizeof told->message, "%s", lt_error_message());
    told->judged = true;
}

static void save_plainly(void *context) {
    at_step(*(int64_t *)context);
    told->status = lt_run_save(&run);
}

static void put_back(const char *name, const image *contents) {
    int file = open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_int_equal(write(file, contents->bytes, contents->size), contents->size);
    close(file);
}

/* The name of a file that should not be there. */
static const char *leftover(void) {
    static char name[300];
    DIR *list = opendir(folder);
    bool found = false;
    for (struct dirent *entry; !found && (entry = readdir(list));) {
        snprintf(name, sizeof name, "%s", entry->d_name);
        found = strstr(name, ".partial") != NULL;
    }
    closedir(list);
    return found ? name : NULL;
}

static const char *judge_message(const fault_case *c) {
    if (c->error == FAULT_SHORT || c->error == EINTR)
        return told->message[0] ? "a call that is to be repeated is complained about" : NULL;
    const bool gives_reason = strstr(told->message, strerror(c->error)) ||
                              (c->kind == FAULT_ALLOCATION && strstr(told->message, "no memory"));
    if (gives_reason && strstr(told->message, folder)) return NULL;
    /* A folder that was synced may fail to close: nothing depends on it. */
    if (c->kind == FAULT_CLOSE && c->number == told->count && told->status == LT_OK) return NULL;
    return "the message does not give file and reason";
}

static const char *judge_save(const fault_case *c) {
    const bool old = holds("step_00000001.h5", &first), new = holds("step_00000002.h5", &second);
    const char *wrong = judge_message(c);
    if (wrong) return wrong;
    if (leftover()) return "a file is left behind";
    if (!new &&access(in_folder("step_00000002.h5"), F_OK) == 0) return "a broken checkpoint is left";
    if (!old && !new) return "no whole checkpoint is left";
    if (told->status == LT_OK) return new ? NULL : "no checkpoint, but all is said to be well";
    if (told->status != LT_IO) return "another status";
    return c->lasting ? NULL : "one fault is not survived";
}

/* What is wrong after a case; NULL if nothing is. */
static const char *judge(const fault_case *c, int ended) {
    static char text[128];
    snprintf(text, sizeof text, "%s%s", told->judged ? "at the exit: " : "",
             WIFSIGNALED(ended) ? strsignal(WTERMSIG(ended)) : "ended by itself");
    return ended != 0 || !told->judged ? text : judge_save(c);
}

static void restore(void) {
    const char *name = leftover();
    put_back("step_00000001.h5", &first);
    unlink(in_folder("step_00000002.h5"));
    if (name) unlink(in_folder(name));
}

static bool try_case(void (*work)(void *context), fault_case c) {
    const char *wrong = judge(&c, apart(work, &c));
    if (wrong)
        print_message("%s %ld fails, %s%s: %s; status %d, %s\n", fault_kind_names[c.kind], c.number,
                      c.error == FAULT_SHORT ? "short" : strerror(c.error), c.lasting ? ", lasting" : "",
                      wrong, told->status, told->message);
    restore();
    return !wrong;
}

/* Every call of a kind in a save: once and from then on, which passing faults (a short write, EINTR) cannot.
 */
static void each_fails(fault_kind kind, const int *errors, int error_count, bool passing) {
    int failures = 0;
    fault_case only_count = {.kind = kind};
    assert_int_equal(apart(save_under_fault, &only_count), 0);
    const long count = told->count;
    assert_true(count > 0);
    restore();
    for (int lasting = 0; lasting < (passing ? 1 : 2); lasting++)
        for (int e = 0; e < error_count; e++)
            for (long number = 1; number <= count; number++)
                failures += !try_case(save_under_fault, (fault_case){kind, number, errors[e], lasting});
    assert_int_equal(failures, 0);
}

static void calls(void **state) {
    (void)state;
    static const fault_kind kinds[] = {FAULT_PWRITE, FAULT_OPEN,   FAULT_TRUNCATE, FAULT_FSYNC,
                                       FAULT_CLOSE,  FAULT_RENAME, FAULT_UNLINK};
    static const int errors[] = {ENOSPC, EIO};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) each_fails(kinds[i], errors, 2, false);
}

static void passing_faults(void **state) {
    (void)state;
    static const int errors[] = {EINTR, FAULT_SHORT};
    each_fails(FAULT_PWRITE, errors, 2, true);
    each_fails(FAULT_PWRITE, &errors[1], 1, false);
}

static void allocations(void **state) {
    (void)state;
    static const int error = ENOMEM;
    if (!fault_allocations) skip();
    each_fails(FAULT_ALLOCATION, &error, 1, false);
}

/* ---- laying out, before the first step
 * ------------------------------------------------------------------------------ */

static void plan_under_fault(void *context) {
    const fault_case *c = context;
    lt_layout_free(run.layout);
    run.layout = NULL;
    at_step(2);
    fault_arm(c->kind, c->number, c->error, c->lasting, folder);
    told->status = lt_run_plan_saves(&run);
    fault_disarm();
    snprintf(told->message, sizeof told->message, "%s", lt_error_message());
    told->planned = told->status == LT_OK;
    if (told->planned) told->status = lt_run_save(&run);
    told->judged = true;
}

static const char *judge_plan(int ended) {
    if (ended != 0 || !told->judged) return "the program does not live on";
    if (told->planned) return holds("step_00000002.h5", &second) ? NULL : "a wrong layout is taken for good";
    if (told->status != LT_IO) return "another status";
    const bool plain = strstr(told->message, "lay out") || strstr(told->message, "layout of checkpoints") ||
                       strstr(told->message, "no memory for");
    return plain ? NULL : "the message does not say what failed";
}

/* The Nth call, in this process or in the child, where HDF5 works; N in strides, since there are thousands,
 * to where a lasting fault comes too late. FAULT_STRIDE=1 tries all; FAULT_FIRST is where they start. */
static void planning(void **state) {
    (void)state;
    static const fault_kind kinds[] = {FAULT_MEMFD, FAULT_FORK,  FAULT_PWRITE,    FAULT_TRUNCATE,
                                       FAULT_SEEK,  FAULT_PREAD, FAULT_ALLOCATION};
    const char *stride = getenv("FAULT_STRIDE"), *start = getenv("FAULT_FIRST");
    int failures = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const bool of_memory = kinds[k] == FAULT_ALLOCATION;
        const long step = !of_memory ? 1 : stride ? strtol(stride, NULL, 10) : 97;
        const long from = of_memory && start ? strtol(start, NULL, 10) : 1;
        long number = from;
        if (of_memory && !fault_allocations) continue;
        for (bool reached = true; reached; number += step) {
            for (int lasting = 0; lasting < 2; lasting++) {
                fault_case c = {kinds[k], number, of_memory ? ENOMEM : EIO, lasting};
                const char *wrong = judge_plan(apart(plan_under_fault, &c));
                if (wrong)
                    print_message("planning, %s %ld fails%s: %s; %s\n", fault_kind_names[c.kind], number,
                                  lasting ? ", lasting" : "", wrong, told->message);
                failures += wrong != NULL;
                reached = !told->planned;
                restore();
            }
        }
        assert_true(number > from + step);
        print_message("planning: %s up to number %ld\n", fault_kind_names[kinds[k]], number - step);
    }
    assert_int_equal(failures, 0);
}

/* The files that the others compare with. */
static int write_first_and_second(void **state) {
    (void)state;
    int64_t step = 1;
    if (apart(save_plainly, &step) != 0 || told->status != LT_OK) return -1;
    first = read_file("step_00000001.h5");
    step = 2;
    if (apart(save_plainly, &step) != 0 || told->status != LT_OK) return -1;
    second = read_file("step_00000002.h5");
    if (lt_checkpoint_verify(in_folder("step_00000002.h5")) != LT_OK) return -1;
    restore();
    return first.bytes && second.bytes ? 0 : -1;
}

static int begin(void **state) {
    const int failed = set_up(state);
    return failed ? failed : write_first_and_second(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls),
        cmocka_unit_test(passing_faults),
        cmocka_unit_test(allocations),
        cmocka_unit_test(planning),
    };
    return cmocka_run_group_tests(tests, begin, tear_down);
}

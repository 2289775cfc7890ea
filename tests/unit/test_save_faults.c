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

enum { HANGS_S = 5 };

static lt_run run;
static char folder[256];

typedef struct image {
    unsigned char *bytes;
    size_t size;
} image;
static image first, second; /* the checkpoints of steps 1 and 2 as an undisturbed save writes them */

/* What a child found out. */
typedef struct report {
    lt_status status, after; /* of the save, and of one more without faults */
    bool judged;
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
    if (lt_cpu_device_create(1, &run.device) != LT_OK || lt_run_plan_saves(&run) != LT_OK ||
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
    told->status = lt_run_save(&run);
    told->count = fault_disarm();
    snprintf(told->message, sizeof told->message, "%s", lt_error_message());
    told->judged = true;
}

/* A child that is a fresh process as far as HDF5 is concerned. */
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

/* What is wrong after a case; NULL if nothing is. */
static const char *judge(const fault_case *c, int ended) {
    static char text[128];
    if (WIFSIGNALED(ended)) {
        snprintf(text, sizeof text, "%s%s", told->judged ? "at the exit: " : "", strsignal(WTERMSIG(ended)));
        return text;
    }
    if (!told->judged || WEXITSTATUS(ended) != 0) return "ended by itself";
    if (leftover()) return "left a file behind";
    const bool old = holds("step_00000001.h5", &first), new = holds("step_00000002.h5", &second);
    if (!old && !new) return "no whole checkpoint is left";
    if (!new &&access(in_folder("step_00000002.h5"), F_OK) == 0) return "a broken checkpoint is left";
    const bool harmless = !c->lasting || c->error == FAULT_SHORT || c->kind == FAULT_CLOSE;
    if (told->status == LT_OK) return new ? NULL : "no checkpoint, but all is said to be well";
    if (told->status != LT_IO) return "another status";
    if (!c->lasting) return "one fault ended the run";
    (void)harmless;
    if (strstr(told->message, folder) == NULL && strstr(told->message, "memory") == NULL)
        return "the message names no file";
    if (c->kind != FAULT_ALLOCATION && strstr(told->message, strerror(c->error)) == NULL)
        return "the message gives no reason";
    return NULL;
}

static void restore(void) {
    put_back("step_00000001.h5", &first);
    unlink(in_folder("step_00000002.h5"));
    const char *name = leftover();
    if (name) unlink(in_folder(name));
}

static int tried, bad;

static void try_case(const fault_case *c) {
    const int ended = apart(save_under_fault, (void *)c);
    const char *wrong = judge(c, ended);
    tried++;
    if (wrong != NULL) {
        bad++;
        print_message("%s %ld %s%s: %s (%s)\n", fault_kind_names[c->kind], c->number,
                      c->error == FAULT_SHORT ? "short" : strerror(c->error), c->lasting ? " lasting" : "",
                      wrong, told->message);
    }
    restore();
}

static long count_calls(fault_kind kind) {
    fault_case only_count = {.kind = kind};
    assert_int_equal(apart(save_under_fault, &only_count), 0);
    assert_int_equal(told->status, LT_OK);
    long count = told->count;
    restore();
    return count;
}

static void each_fails(fault_kind kind, const int *errors, int error_count) {
    tried = bad = 0;
    const long count = count_calls(kind);
    for (int lasting = 0; lasting < 2; lasting++)
        for (int e = 0; e < error_count; e++)
            for (long number = 1; number <= count; number++)
                try_case(&(fault_case){kind, number, errors[e], lasting});
    print_message("%s: %ld a save, %d cases, %d bad\n", fault_kind_names[kind], count, tried, bad);
}

static void undisturbed(void **state) {
    (void)state;
    int64_t step = 1;
    assert_int_equal(apart(save_plainly, &step), 0);
    assert_int_equal(told->status, LT_OK);
    first = read_file("step_00000001.h5");
    step = 2;
    assert_int_equal(apart(save_plainly, &step), 0);
    second = read_file("step_00000002.h5");
    assert_non_null(first.bytes);
    assert_non_null(second.bytes);
    restore();
}

static void calls(void **state) {
    (void)state;
    static const int errors[] = {ENOSPC, EIO};
    for (int kind = 1; kind < FAULT_ALLOCATION; kind++) each_fails((fault_kind)kind, errors, 2);
}

static void allocations(void **state) {
    (void)state;
    static const int error[] = {ENOMEM};
    each_fails(FAULT_ALLOCATION, error, 1);
}

static void allocations_later(void **state) {
    (void)state;
    static const int error[] = {ENOMEM};
    at_step(3);
    assert_int_equal(lt_run_save(&run), LT_OK);
    unlink(in_folder("step_00000003.h5"));
    restore();
    each_fails(FAULT_ALLOCATION, error, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(undisturbed),
        cmocka_unit_test(calls),
        cmocka_unit_test(allocations),
        cmocka_unit_test(allocations_later),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

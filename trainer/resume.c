#include "trainer/setup.h"

#include "checkpoints/folder.h"
#include "comm/log.h"
#include "trainer/version.h"

#include <string.h>

/* ---- config ---- */

/* Reads run->config anew; it stays what it was after an error. */
static lt_status load_config(lt_run *run, const char *kept) {
    lt_config config;
    LT_CHECK(lt_config_load(run->arguments.config_path,
                            &(lt_config_overrides){run->arguments.overrides, run->arguments.override_count},
                            kept, &run->tokenizer, &config));
    lt_config_free(&run->config);
    run->config = config;
    run->config.identity = run->identity;
    return LT_OK;
}

static bool resumes_by_name(const lt_run *run) {
    return strcmp(run->arguments.resume, "auto") != 0 && strcmp(run->arguments.resume, "none") != 0;
}

/* Whether there may be a checkpoint to go on from: what is unset in the config then follows it. */
bool lt_run_may_resume(const lt_run *run) {
    if (strcmp(run->arguments.resume, "none") == 0) return false;
    return resumes_by_name(run) || lt_folder_holds_run(run->config.checkpoint.dir);
}

lt_status lt_run_read_config(lt_run *run) {
    LT_CHECK(load_config(run, lt_config_kept_later));
    return lt_run_may_resume(run) ? LT_OK : load_config(run, NULL);
}

/* ---- folder and checkpoint ---- */

static lt_status discard(void *context, lt_tensor_kind kind, const lt_parameter *parameter, int64_t first,
                         int64_t count, const float *values) {
    (void)context, (void)kind, (void)parameter, (void)first, (void)count, (void)values;
    return LT_OK;
}

/* Whether all that the run wants of a checkpoint is there, whole and in the model's shapes. */
static lt_status check_contents(const lt_run *run, const char *path, bool resumes) {
    return lt_checkpoint_load(path, &run->registry, resumes, &(lt_tensor_access){.put = discard});
}

static void warn_of_other_bits(const lt_run *run, const lt_provenance *saved, const char *changed) {
    if (strcmp(saved->instruction_set, run->device->instruction_set) != 0 ||
        strcmp(saved->blas_kernel, run->device->blas_kernel) != 0 || strcmp(saved->commit, lt_commit()) != 0)
        lt_log_warning(
            "%s was written by commit %s with instruction set %s and BLAS kernel %s; this is commit %s with "
            "%s and %s: the run goes on, but not bit by bit as it would have there",
            run->resumed_from, saved->commit, saved->instruction_set, saved->blas_kernel, lt_commit(),
            run->device->instruction_set, run->device->blas_kernel);
    if (changed[0] != '\0')
        lt_log_warning("changed since %s, which changes bits: %s", run->resumed_from, changed);
}

/* Sources are told apart by their place in data.train. */
static void take_sources(lt_run *run, const lt_checkpoint_header *header) {
    const int before = header->sources, now = run->mixture.sources;
    for (int i = 0; i < now; i++) run->consumed[i] = i < before ? header->samples_consumed[i] : 0;
    if (before > 0 && before < now)
        lt_log_info("data.train has %d sources, %s %d: the first %d go on where they were, the others begin",
                    now, run->resumed_from, before, before);
    if (before > now)
        lt_log_info("data.train has %d sources, %s %d: these go on where the first of those were", now,
                    run->resumed_from, before);
}

/* Settles config and counters of a run that goes on from the checkpoint of this header. */
static lt_status adopt_header(lt_run *run, const lt_checkpoint_header *header) {
    lt_config saved;
    LT_CHECK(lt_config_parse(header->config, run->resumed_from, &saved));
    memcpy(saved.identity.hash, header->data_hash, sizeof saved.identity.hash);
    saved.identity.files = header->data_files;
    saved.identity.bytes = header->data_bytes;
    memcpy(saved.tokenizer_hash, header->tokenizer_hash, sizeof saved.tokenizer_hash);
    lt_status status = load_config(run, header->step > 0 ? header->config : NULL);
    if (status == LT_OK) {
        char changed[512];
        status = lt_config_check_resume(&saved, header->step, &run->config, run->arguments.allowed,
                                        run->arguments.allowed_count, changed, sizeof changed);
        if (status == LT_OK) warn_of_other_bits(run, &header->provenance, changed);
    }
    lt_config_free(&saved);
    run->step = header->step;
    run->tokens = header->tokens;
    if (status == LT_OK) take_sources(run, header);
    return status;
}

static lt_status adopt_checkpoint(lt_run *run) {
    lt_checkpoint_header header;
    LT_CHECK(lt_checkpoint_read_header(run->resumed_from, &header));
    const lt_status status = adopt_header(run, &header);
    lt_checkpoint_header_free(&header);
    LT_CHECK(status);
    return lt_run_divide_work(run);
}

/* Weights of another tokenizer are no error: the same vocabulary comes in several files (a .model turned into
 * a tokenizer.json, one with tokens added), which only who trains can know. */
static lt_status judge_init_from(const lt_run *run) {
    const char *path = run->arguments.init_from, *hash = run->config.tokenizer_hash;
    lt_checkpoint_header header;
    LT_CHECK(check_contents(run, path, false));
    LT_CHECK(lt_checkpoint_read_header(path, &header));
    if (header.tokenizer_hash[0] != '\0' && hash[0] != '\0' && strcmp(header.tokenizer_hash, hash) != 0)
        lt_log_warning(
            "%s was trained with another tokenizer (hash %s) than data.tokenizer '%s' (hash %s): its "
            "embeddings mean other tokens, unless both files give the same ids",
            path, header.tokenizer_hash, run->config.data.tokenizer, hash);
    lt_checkpoint_header_free(&header);
    return LT_OK;
}

/* Files that the command line names are judged before the folder is touched. --init-from is ignored where
 * there is a run to go on with. */
static lt_status judge_named_files(lt_run *run) {
    const lt_train_arguments *arguments = &run->arguments;
    if (resumes_by_name(run)) {
        snprintf(run->resumed_from, sizeof run->resumed_from, "%s", arguments->resume);
        LT_CHECK(lt_checkpoint_verify(arguments->resume));
        LT_CHECK(adopt_checkpoint(run));
        return check_contents(run, arguments->resume, true);
    }
    if (arguments->init_from == NULL || lt_run_may_resume(run)) return LT_OK;
    return judge_init_from(run);
}

/* Both folders are looked at before anything in one of them goes. */
static lt_status prepare_folders(lt_run *run) {
    const char *folder = run->config.checkpoint.dir, *log = run->config.log.dir;
    if (strcmp(log, folder) != 0) LT_CHECK(lt_folder_prepare("log.dir", log, 1 << 20, &run->made_log));
    LT_CHECK(lt_folder_prepare("checkpoint.dir", folder, run->checkpoint_bytes, &run->made_folder));
    return lt_metrics_check(log);
}

/* The newest checkpoint of the folder, or none. */
static lt_status find_checkpoint(lt_run *run) {
    const char *folder = run->config.checkpoint.dir;
    if (strcmp(run->arguments.resume, "auto") == 0) {
        LT_CHECK(lt_folder_latest(folder, run->resumed_from, sizeof run->resumed_from));
        return run->resumed_from[0] != '\0' ? adopt_checkpoint(run) : load_config(run, NULL);
    }
    if (!lt_folder_holds_run(folder) || run->arguments.overwrite) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "%s holds a run, which --resume none would replace; add --overwrite to delete it, or choose "
        "another checkpoint.dir",
        folder);
}

lt_status lt_run_take_folder(lt_run *run) {
    if (strlen(run->config_text) > LT_CHECKPOINT_MAX_CONFIG)
        return lt_fail(
            LT_BAD_INPUT,
            "%s: the resolved config has %zu bytes, expected at most %d, which a checkpoint can hold; name "
            "data by globs or folders",
            run->arguments.config_path, strlen(run->config_text), LT_CHECKPOINT_MAX_CONFIG);
    LT_CHECK(judge_named_files(run));
    LT_CHECK(prepare_folders(run));
    LT_CHECK(lt_folder_lock(run->config.checkpoint.dir));
    run->folder_locked = true;
    if (resumes_by_name(run)) return lt_folder_supersede(run->config.checkpoint.dir, run->step);
    LT_CHECK(find_checkpoint(run));
    return run->arguments.overwrite ? lt_folder_clear(run->config.checkpoint.dir) : LT_OK;
}

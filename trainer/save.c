#include "trainer/background.h"

#include "checkpoints/folder.h"
#include "comm/log.h"
#include "comm/watchdog.h"

#include <string.h>

void lt_run_header(const lt_run *run, lt_checkpoint_header *header) {
    *header = (lt_checkpoint_header){.step = run->step,
                                     .tokens = run->tokens,
                                     .config = run->config_text,
                                     .provenance = run->provenance,
                                     .data_files = run->identity.files,
                                     .data_bytes = run->identity.bytes,
                                     .sources = run->mixture.sources};
    for (int i = 0; i < header->sources; i++)
        header->samples_consumed[i] = lt_mixture_consumed(&run->mixture, i, run->samples);
    memcpy(header->data_hash, run->identity.hash, sizeof header->data_hash);
    memcpy(header->tokenizer_hash, run->config.tokenizer_hash, sizeof header->tokenizer_hash);
}

lt_status lt_run_plan_saves(lt_run *run) {
    lt_checkpoint_header header;
    lt_run_header(run, &header);
    return lt_layout_create(&header, &run->registry, &run->layout);
}

static lt_status save_once(lt_run *run) {
    lt_checkpoint_header header;
    lt_run_header(run, &header);
    const lt_tensor_access access = lt_run_tensors(run);
    lt_status ready = run->folder_locked ? lt_folder_check_lock(run->config.checkpoint.dir) : LT_OK;
    if (ready == LT_OK && run->metrics != NULL) ready = lt_metrics_sync(run->metrics);
    LT_CHECK(lt_run_share(run, ready));
    const lt_status saved = lt_checkpoint_save(&run->grid, run->layout, run->config.checkpoint.dir, &header,
                                               &run->registry, &access);
    LT_CHECK(lt_run_share(run, saved));
    const lt_status status = run->grid.rank == 0
                                 ? lt_folder_retain(run->config.checkpoint.dir, run->config.checkpoint.keep,
                                                    run->config.checkpoint.keep_every)
                                 : LT_OK;
    return lt_run_share(run, status);
}

void lt_run_grant_transfer(const lt_run *run) {
    lt_watchdog_grant((double)run->checkpoint_bytes / 20e6);
}

lt_status lt_run_check_device(lt_run *run) {
    return lt_run_share(run, run->device->ops->synchronise(run->device));
}

lt_status lt_run_save(lt_run *run) {
    LT_CHECK(lt_background_finish(run));
    const double begin = lt_now_s();
    lt_run_grant_transfer(run);
    lt_watchdog_tick("saving a checkpoint", run->step);
    lt_status status = save_once(run);
    if (status != LT_OK) {
        LT_CHECK(lt_run_check_device(run));
        lt_log_warning("%s; trying once more", lt_error_message());
        lt_watchdog_tick("saving a checkpoint again", run->step);
        LT_CHECK(save_once(run));
    }
    lt_watchdog_grant(0);
    char path[PATH_MAX];
    lt_run_checkpoint_path(run, run->step, path, sizeof path);
    lt_log_info("saved %s in %.2f s", path, lt_now_s() - begin);
    return LT_OK;
}

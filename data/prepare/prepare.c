#include "data/prepare/prepare.h"

#include "comm/log.h"
#include "comm/watchdog.h"
#include "data/prepare/result.h"

#include <string.h>
#include <xxhash.h>

/* A rank that does not move for so long ends the job. */
static const double stall_timeout_s = 600;

/* All ranks made the same plan, or one of them sees other files. Collective. */
static lt_status check_same_plan(const lt_grid *grid, const lt_prepare_plan *plan) {
    char *text = json_dumps(plan->begun, JSON_COMPACT);
    lt_status status = text == NULL ? lt_fail(LT_IO, "no memory to describe the inputs") : LT_OK;
    const XXH64_hash_t mine = text == NULL ? 0 : XXH3_64bits(text, strlen(text));
    XXH64_hash_t first = mine;
    free(text);
    LT_CHECK(lt_grid_share_status(grid, status, NULL));
    LT_CHECK(lt_grid_broadcast(grid, &first, sizeof first, 0));
    if (first != mine)
        status = lt_fail(
            LT_BAD_INPUT,
            "--input: rank %d on host %s sees other input files or another tokenizer than rank 0; every "
            "host must see the same",
            grid->rank, grid->host);
    return lt_grid_share_status(grid, status, NULL);
}

/* Collective. */
static lt_status begin_folder(const lt_grid *grid, const lt_prepare_plan *plan, lt_prepare_folder *folder,
                              bool *finished) {
    lt_status status = LT_OK;
    *finished = false;
    if (grid->rank == 0) status = lt_prepare_folder_begin(folder, plan, finished);
    LT_CHECK(lt_grid_share_status(grid, status, NULL));
    return lt_grid_broadcast(grid, finished, sizeof *finished, 0);
}

/* Collective. */
static lt_status finish_folder(const lt_grid *grid, const lt_survey *survey, lt_prepare_folder *folder) {
    lt_status status = LT_OK;
    if (grid->rank == 0) {
        status = lt_result_write(survey);
        if (status == LT_OK) status = lt_prepare_folder_end(folder);
    }
    return lt_grid_share_status(grid, status, NULL);
}

static lt_status fill_folder(lt_crew *crew, const lt_prepare_plan *plan, lt_prepare_folder *folder) {
    lt_survey survey;
    LT_CHECK(lt_prepare_tokenise(crew, plan, folder));
    lt_status status = lt_survey_open(crew, plan, folder, &survey);
    if (status == LT_OK && plan->options->dedup) status = lt_duplicates_find(crew, &survey);
    if (status == LT_OK && plan->options->dedup) status = lt_survey_drop(crew, &survey);
    if (status == LT_OK) status = lt_shards_write(crew, &survey);
    if (status == LT_OK) status = finish_folder(crew->grid, &survey, folder);
    if (status == LT_OK) lt_result_report(&survey);
    lt_survey_close(&survey);
    return status;
}

static lt_status prepare(const lt_grid *grid, const lt_prepare_plan *plan, lt_prepare_folder *folder) {
    const lt_prepare_options *options = plan->options;
    bool finished;
    LT_CHECK(check_same_plan(grid, plan));
    LT_CHECK(begin_folder(grid, plan, folder, &finished));
    if (finished) {
        lt_log_info("%s was prepared with the same settings and inputs before: nothing to do", folder->path);
        return LT_OK;
    }
    lt_log_info("preparing %lld files in %lld pieces, %d rank%s", (long long)lt_files_count(plan->files),
                (long long)plan->piece_count, grid->ranks, grid->ranks == 1 ? "" : "s");
    lt_crew crew;
    lt_crew_open(&crew, grid, options->threads > 0 ? options->threads : grid->cores, options->on_terminal);
    LT_CHECK(lt_grid_share_status(grid, lt_watchdog_start(grid, stall_timeout_s), NULL));
    const lt_status status = fill_folder(&crew, plan, folder);
    if (status == LT_BAD_INPUT && grid->rank == 0) lt_prepare_folder_undo(folder);
    lt_watchdog_stop();
    lt_crew_close(&crew);
    return status;
}

lt_status lt_prepare(const lt_grid *grid, const lt_prepare_options *options) {
    lt_prepare_plan plan;
    lt_prepare_folder folder;
    lt_status status = lt_prepare_plan_open(options, &plan);
    if (status == LT_OK) status = lt_prepare_folder_name(&folder, options->output);
    status = lt_grid_share_status(grid, status, NULL);
    if (status == LT_OK) {
        status = prepare(grid, &plan, &folder);
        lt_prepare_folder_close(&folder);
    }
    lt_prepare_plan_close(&plan);
    return status;
}

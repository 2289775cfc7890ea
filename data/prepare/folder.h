/* The folder that is prepared. While it is half done, .work in it holds what is finished, what it was begun
 * with (begun.json) and a lock; behind the manifest, .work goes. Internal to data/prepare. */
#ifndef LT_DATA_PREPARE_FOLDER_H
#define LT_DATA_PREPARE_FOLDER_H

#include "data/prepare/plan.h"

#include <limits.h>

typedef struct lt_prepare_folder {
    char path[PATH_MAX], work[PATH_MAX];
    char split_work[PATH_MAX]; /* where the validation split grows: work/validation */
    char split_path[PATH_MAX]; /* and where it then is: path/validation */
    int lock;                  /* -1: not held */
} lt_prepare_folder;

/* Fills in the names. LT_BAD_INPUT: too long. Local. */
lt_status lt_prepare_folder_name(lt_prepare_folder *folder, const char *output);

/* Begins the folder or goes on with it; `*finished`: it was made with the same before, and nothing is to be
 * done. LT_BAD_INPUT: it cannot be written, or holds something else. LT_IO: another run uses it. Rank 0
 * alone. */
lt_status lt_prepare_folder_begin(lt_prepare_folder *folder, const lt_prepare_plan *plan, bool *finished);

/* Moves the validation split into its place, if it is not there. Rank 0 alone. */
lt_status lt_prepare_folder_place_validation(const lt_prepare_folder *folder);

/* Removes .work. Rank 0 alone. */
lt_status lt_prepare_folder_end(lt_prepare_folder *folder);

/* After bad input: removes .work, and the folder, where nothing is finished that could be gone on with. Rank
 * 0 alone. */
void lt_prepare_folder_undo(lt_prepare_folder *folder);

/* Lets the lock go. */
void lt_prepare_folder_close(lt_prepare_folder *folder);

#endif

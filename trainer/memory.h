/* The memory that this process may still take. Local. */
#ifndef LT_TRAINER_MEMORY_H
#define LT_TRAINER_MEMORY_H

/* Bytes that the system and this process's control groups (a SLURM job's --mem, a container's limit; cgroup
 * v2 and v1) can still give; 0 where nothing says so. Page cache that can be dropped counts as free. `root`
 * is "" but in tests: the folder that holds proc/ and sys/. */
double lt_memory_available(const char *root);

#endif

/* A lock around the buffers of a single-threaded OpenBLAS.
 *
 * Every sgemm takes a work buffer from a list inside the library. Debian's single-threaded build has no lock
 * there (OpenBLAS's USE_LOCKING), so two threads that call at the same instant can be handed the same buffer
 * and ruin each other's product: seen in 42 of 5,000 products on two threads. The linker sends the library's
 * two calls here (--wrap, see the Makefile); nothing else of the library is shared between calls. */
#include <pthread.h>

void *__real_blas_memory_alloc(int position);
void __real_blas_memory_free(void *buffer);
void *__wrap_blas_memory_alloc(int position);
void __wrap_blas_memory_free(void *buffer);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void *__wrap_blas_memory_alloc(int position) {
    pthread_mutex_lock(&lock);
    void *buffer = __real_blas_memory_alloc(position);
    pthread_mutex_unlock(&lock);
    return buffer;
}

void __wrap_blas_memory_free(void *buffer) {
    pthread_mutex_lock(&lock);
    __real_blas_memory_free(buffer);
    pthread_mutex_unlock(&lock);
}

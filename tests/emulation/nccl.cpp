/* NCCL's twin between processes of one host: a socket for each pair of ranks. Every message is preceded by
 * its length, so that two ranks who disagree about what they exchange are found out. The messages of a group
 * are under way all at once, and groups one after another, as on GPUs: ranks whose groups wait for each other
 * crosswise hang here too, until DEADLINE_S. */
#include "model/cuda/nccl.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { DEADLINE_S = 60, SYSTEM_ERROR = 2, INVALID_USAGE = 5, REMOTE_ERROR = 6 };

struct ncclComm {
    int rank;
    std::vector<int> sockets; /* to each rank; -1: oneself */
    ncclResult_t error;
    void *buffers; /* on the device, from its first message on */
};

namespace {

struct message {
    uint64_t length, moved;
    unsigned char *at; /* what is sent or received, behind the length */
    bool sends;
    uint64_t header;
};

struct group {
    cudaStream_t stream;
    std::map<ncclComm_t, std::map<int, std::vector<message>>> of; /* by communicator and peer */
};

thread_local int depth;
thread_local group pending;

double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/* Moves what can be moved of the first message of its kind; false: the peer is gone. */
bool advance(int socket, message *m) {
    while (m->moved < sizeof m->header + m->length) {
        const bool begins = m->moved < sizeof m->header;
        unsigned char *at = begins ? reinterpret_cast<unsigned char *>(&m->header) + m->moved
                                   : m->at + (m->moved - sizeof m->header);
        const size_t left = begins ? sizeof m->header - m->moved : sizeof m->header + m->length - m->moved;
        const ssize_t n = m->sends ? ::send(socket, at, left, MSG_NOSIGNAL) : ::recv(socket, at, left, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
        if (n <= 0) return false;
        m->moved += static_cast<uint64_t>(n);
        if (m->moved == sizeof m->header && m->header != m->length)
            emulation::fail("NCCL: a message of %llu bytes where %llu are expected",
                            static_cast<unsigned long long>(m->header),
                            static_cast<unsigned long long>(m->length));
    }
    return true;
}

bool is_done(const message &m) {
    return m.moved == sizeof m.header + m.length;
}

/* The first message of each direction that is not done, of each peer. */
ncclResult_t exchange(ncclComm_t ranks, std::map<int, std::vector<message>> &peers) {
    const double end = now() + DEADLINE_S;
    for (bool left = true; left;) {
        left = false;
        std::vector<pollfd> waits;
        for (auto &[peer, messages] : peers)
            for (const bool sends : {true, false}) {
                const int socket = ranks->sockets[static_cast<size_t>(peer)];
                for (message &m : messages) {
                    if (m.sends != sends || is_done(m)) continue;
                    if (!advance(socket, &m)) return REMOTE_ERROR;
                    if (is_done(m)) continue;
                    waits.push_back({socket, static_cast<short>(sends ? POLLOUT : POLLIN), 0});
                    left = true;
                    break;
                }
            }
        if (left) poll(waits.data(), waits.size(), 1000);
        if (now() > end)
            emulation::fail("NCCL: ranks wait for each other (rank %d of its group)", ranks->rank);
    }
    return ncclSuccess;
}

/* Connections are made when they are first needed, and take memory then. */
bool connect_all(ncclComm_t ranks) {
    const size_t bytes = static_cast<size_t>(emulated_number("EMULATED_NCCL_MIB", 0)) << 20;
    return ranks->buffers != nullptr || cudaMalloc(&ranks->buffers, bytes) == cudaSuccess;
}

ncclResult_t add(const void *buffer, size_t bytes, bool sends, int peer, ncclComm_t ranks,
                 cudaStream_t stream) {
    if (!connect_all(ranks)) return SYSTEM_ERROR;
    if (pending.stream != nullptr && pending.stream != stream) return INVALID_USAGE;
    pending.stream = stream;
    pending.of[ranks][peer].push_back(
        {bytes, 0, static_cast<unsigned char *>(const_cast<void *>(buffer)), sends, bytes});
    return ncclSuccess;
}

void put_pending() {
    if (pending.stream == nullptr) return;
    emulated_put(pending.stream, [own = std::move(pending)]() mutable {
        for (auto &[ranks, peers] : own.of)
            if (ranks->error == ncclSuccess) ranks->error = exchange(ranks, peers);
    });
    pending = {};
}

/* The sum in descending order of ranks, which is not that of any tree of ours. */
void sum_all(ncclComm_t ranks, const float *from, float *to, size_t count, int root) {
    const size_t others = ranks->sockets.size();
    std::vector<std::vector<float>> parts(others, std::vector<float>(count));
    std::map<int, std::vector<message>> peers;
    const uint64_t bytes = count * sizeof(float);
    for (size_t i = 0; i < others; i++) {
        const int peer = static_cast<int>(i);
        if (peer == ranks->rank) continue;
        if (root < 0 || root == peer)
            peers[peer].push_back(
                {bytes, 0, reinterpret_cast<unsigned char *>(const_cast<float *>(from)), true, bytes});
        if (root < 0 || root == ranks->rank)
            peers[peer].push_back(
                {bytes, 0, reinterpret_cast<unsigned char *>(parts[i].data()), false, bytes});
    }
    if (ranks->error == ncclSuccess) ranks->error = exchange(ranks, peers);
    if (root >= 0 && root != ranks->rank) return;
    memcpy(parts[static_cast<size_t>(ranks->rank)].data(), from, bytes);
    std::copy(parts[others - 1].begin(), parts[others - 1].end(), to);
    for (size_t i = others - 1; i-- > 0;)
        for (size_t j = 0; j < count; j++) to[j] += parts[i][j];
}

sockaddr_un address_of(const ncclUniqueId &id, int rank, socklen_t *length) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const int used = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "emulated-nccl-%.32s-%d",
                              id.internal, rank);
    *length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + static_cast<size_t>(used));
    return address;
}

bool reach(const ncclUniqueId &id, int rank, int peer, int *result) {
    socklen_t length;
    const sockaddr_un address = address_of(id, peer, &length);
    for (const double end = now() + DEADLINE_S; now() < end; usleep(1000)) {
        const int own = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(own, reinterpret_cast<const sockaddr *>(&address), length) == 0) {
            *result = own;
            return ::send(own, &rank, sizeof rank, MSG_NOSIGNAL) == sizeof rank;
        }
        close(own);
    }
    return false;
}

bool meet(ncclComm_t ranks, const ncclUniqueId &id) {
    socklen_t length;
    const int count = static_cast<int>(ranks->sockets.size());
    const sockaddr_un own = address_of(id, ranks->rank, &length);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good =
        bind(listener, reinterpret_cast<const sockaddr *>(&own), length) == 0 && listen(listener, count) == 0;
    for (int peer = 0; good && peer < ranks->rank; peer++)
        good = reach(id, ranks->rank, peer, &ranks->sockets[static_cast<size_t>(peer)]);
    for (int i = ranks->rank + 1; good && i < count; i++) {
        int peer = -1;
        const int from = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        good = from >= 0 && recv(from, &peer, sizeof peer, MSG_WAITALL) == sizeof peer &&
               peer > ranks->rank && peer < count;
        if (good) ranks->sockets[static_cast<size_t>(peer)] = from;
    }
    close(listener);
    for (int socket : ranks->sockets)
        if (socket >= 0) fcntl(socket, F_SETFL, O_NONBLOCK);
    return good;
}

} // namespace

/* EMULATED_NCCL, or what this is modelled on; EMULATED_NCCL_MIB: what a communicator takes on the device. */
ncclResult_t ncclGetVersion(int *version) {
    *version = emulated_number("EMULATED_NCCL", 22809);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    return result == REMOTE_ERROR ? "remote process exited or there was a network error" : "emulated error";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    std::random_device drawn;
    *id = {};
    snprintf(id->internal, sizeof id->internal, "%08x%08x%08x", drawn(), drawn(), drawn());
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *ranks, int count, ncclUniqueId id, int rank) {
    *ranks = new ncclComm{rank, std::vector<int>(static_cast<size_t>(count), -1), ncclSuccess, nullptr};
    return meet(*ranks, id) ? ncclResult_t{ncclSuccess} : ncclResult_t{REMOTE_ERROR};
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t ranks, ncclResult_t *result) {
    *result = ranks->error;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t ranks) {
    for (int socket : ranks->sockets)
        if (socket >= 0) close(socket);
    cudaFree(ranks->buffers);
    delete ranks;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t ranks) {
    return ncclCommDestroy(ranks);
}

ncclResult_t ncclGroupStart() {
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    if (--depth == 0) put_pending();
    return ncclSuccess;
}

static size_t bytes_of(size_t count, int type) {
    return count * (type == int{ncclFloat32} ? sizeof(float) : 1);
}

ncclResult_t ncclSend(const void *from, size_t count, int type, int peer, ncclComm_t ranks,
                      cudaStream_t stream) {
    const ncclResult_t result = add(from, bytes_of(count, type), true, peer, ranks, stream);
    if (depth == 0) put_pending();
    return result;
}

ncclResult_t ncclRecv(void *to, size_t count, int type, int peer, ncclComm_t ranks, cudaStream_t stream) {
    const ncclResult_t result = add(to, bytes_of(count, type), false, peer, ranks, stream);
    if (depth == 0) put_pending();
    return result;
}

ncclResult_t ncclReduce(const void *from, void *to, size_t count, int, int, int root, ncclComm_t ranks,
                        cudaStream_t stream) {
    if (!connect_all(ranks)) return SYSTEM_ERROR;
    emulated_put(stream, [=] {
        sum_all(ranks, static_cast<const float *>(from), static_cast<float *>(to), count, root);
    });
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, int type, int operation,
                           ncclComm_t ranks, cudaStream_t stream) {
    return ncclReduce(from, to, count, type, operation, -1, ranks, stream);
}

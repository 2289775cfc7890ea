// libsentencepiece behind a table of C functions. No exception leaves it.
#include "data/plugins/sentencepiece.h"

#include <cstdio>
#include <exception>
#include <memory>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

// Exported by the library, declared in none of its installed headers. Its log goes to stderr.
namespace sentencepiece::logging {
void SetMinLogLevel(int level);
}

namespace {

using sentencepiece::SentencePieceProcessor;

static_assert(sizeof(int) == sizeof(int32_t));

void tell(const std::string &message, char *error, size_t error_bytes) {
    std::snprintf(error, error_bytes, "%s", message.empty() ? "it does not say why" : message.c_str());
}

void *load(const char *data, size_t bytes, char *error, size_t error_bytes) {
    try {
        sentencepiece::logging::SetMinLogLevel(3); // fatal ones alone
        auto model = std::make_unique<SentencePieceProcessor>();
        const auto status = model->LoadFromSerializedProto({data, bytes});
        if (status.ok()) return model.release();
        tell(status.ToString(), error, error_bytes);
    } catch (const std::exception &thrown) {
        tell(thrown.what(), error, error_bytes);
    } catch (...) {
        tell("", error, error_bytes);
    }
    return nullptr;
}

void unload(void *model) {
    delete static_cast<SentencePieceProcessor *>(model);
}

bool encode(const void *model, const char *text, size_t bytes, lt_sentencepiece_take *take, void *context,
            char *error, size_t error_bytes) {
    try {
        std::vector<int> ids;
        const auto status = static_cast<const SentencePieceProcessor *>(model)->Encode({text, bytes}, &ids);
        error[0] = '\0';
        if (status.ok()) return take(context, ids.data(), ids.size());
        tell(status.ToString(), error, error_bytes);
    } catch (const std::exception &thrown) {
        tell(thrown.what(), error, error_bytes);
    } catch (...) {
        tell("", error, error_bytes);
    }
    return false;
}

} // namespace

extern "C" __attribute__((visibility("default")))
const lt_sentencepiece_table lt_sentencepiece_plugin = {load, unload, encode};

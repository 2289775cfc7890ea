// Parquet files behind a table of C functions: parquet.h. Columns are read below Arrow's tables, page by
// page, which takes the least memory and leaves every stored string as it is, whatever Arrow type it came
// from. No child process stands between, as for HDF5: fuzzing found no file that crashes Arrow
// (tests/fuzz/fuzz_parquet.c).
#include "data/plugins/parquet.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <arrow/memory_pool.h>
#include <parquet/api/reader.h>
#include <parquet/column_page.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace {

using arrow::Result;
using arrow::Status;

// Refuses what goes over LT_PARQUET_MEMORY_BYTES, before anything is taken.
class Pool final : public arrow::MemoryPool {
  public:
    using MemoryPool::Allocate;
    using MemoryPool::Free;
    using MemoryPool::Reallocate;
    Status Allocate(int64_t size, int64_t alignment, uint8_t **out) override {
        ARROW_RETURN_NOT_OK(check(size));
        ARROW_RETURN_NOT_OK(pool->Allocate(size, alignment, out));
        used += size;
        return Status::OK();
    }
    Status Reallocate(int64_t old_size, int64_t size, int64_t alignment, uint8_t **data) override {
        ARROW_RETURN_NOT_OK(check(size)); // the old one stays meanwhile
        ARROW_RETURN_NOT_OK(pool->Reallocate(old_size, size, alignment, data));
        used += size - old_size;
        return Status::OK();
    }
    void Free(uint8_t *buffer, int64_t size, int64_t alignment) override {
        pool->Free(buffer, size, alignment);
        used -= size;
    }
    int64_t bytes_allocated() const override {
        return used;
    }
    int64_t total_bytes_allocated() const override {
        return pool->total_bytes_allocated();
    }
    int64_t num_allocations() const override {
        return pool->num_allocations();
    }
    std::string backend_name() const override {
        return "system";
    }

  private:
    Status check(int64_t size) const {
        if (size <= LT_PARQUET_MEMORY_BYTES - used) return Status::OK();
        return Status::OutOfMemory("it asks for ", size, " bytes beside ", used, ", more than the ",
                                   LT_PARQUET_MEMORY_BYTES, " that a file may take");
    }
    arrow::MemoryPool *pool = arrow::system_memory_pool();
    int64_t used = 0;
};

// The caller's file. A read never asks for memory beyond its end, whatever lengths it claims.
class Source final : public arrow::io::RandomAccessFile {
  public:
    Source(const lt_parquet_source &from, arrow::MemoryPool *memory) : source(from), pool(memory) {}
    Status Close() override {
        return Status::OK();
    }
    bool closed() const override {
        return false;
    }
    Result<int64_t> Tell() const override {
        return place;
    }
    Result<int64_t> GetSize() override {
        return source.bytes;
    }
    Status Seek(int64_t position) override {
        place = position;
        return Status::OK();
    }
    Result<int64_t> Read(int64_t count, void *out) override {
        ARROW_ASSIGN_OR_RAISE(const int64_t got, ReadAt(place, count, out));
        place += got;
        return got;
    }
    Result<std::shared_ptr<arrow::Buffer>> Read(int64_t count) override {
        ARROW_ASSIGN_OR_RAISE(auto buffer, ReadAt(place, count));
        place += buffer->size();
        return buffer;
    }
    Result<int64_t> ReadAt(int64_t position, int64_t count, void *out) override {
        ARROW_ASSIGN_OR_RAISE(count, within(position, count));
        if (count > 0 && !source.read(source.context, position, out, static_cast<size_t>(count)))
            return Status::IOError("cannot read ", count, " bytes at byte ", position);
        return count;
    }
    Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t count) override {
        ARROW_ASSIGN_OR_RAISE(count, within(position, count));
        ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> buffer, arrow::AllocateBuffer(count, pool));
        ARROW_RETURN_NOT_OK(ReadAt(position, count, buffer->mutable_data()).status());
        return buffer;
    }

  private:
    Result<int64_t> within(int64_t position, int64_t count) const {
        if (position < 0 || count < 0 || position > source.bytes)
            return Status::IOError("it points at ", count, " bytes at byte ", position, " of ", source.bytes);
        return std::min(count, source.bytes - position);
    }
    const lt_parquet_source source;
    arrow::MemoryPool *const pool;
    int64_t place = 0;
};

// Counts the pages, so that an error can name one.
class Pages final : public parquet::PageReader {
  public:
    explicit Pages(std::unique_ptr<PageReader> pages) : inner(std::move(pages)) {}
    std::shared_ptr<parquet::Page> NextPage() override {
        number++;
        return inner->NextPage();
    }
    void set_max_page_header_size(uint32_t size) override {
        inner->set_max_page_header_size(size);
    }
    int64_t number = -1; // of the page that was read last

  private:
    const std::unique_ptr<PageReader> inner;
};

// Names and messages must fit a line.
std::string one_line(std::string text) {
    for (char &c : text)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return text;
}

void report(const std::string &where, const char *what, char *error) {
    std::string line = what;
    line.erase(line.find_last_not_of(" \n") + 1);
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::snprintf(error, LT_PARQUET_ERROR_BYTES, "%s%s", where.c_str(), one_line(line).c_str());
}

[[noreturn]] void broken(const std::string &what) {
    throw parquet::ParquetException(what);
}

// The type's own name, and what it stands for.
std::string type_of(const parquet::ColumnDescriptor &column) {
    const auto &logical = column.logical_type();
    std::string type = parquet::TypeToString(column.physical_type());
    if (logical != nullptr && !logical->is_none()) type += ", " + logical->ToString();
    return one_line(type);
}

lt_parquet_kind kind_of(const parquet::ColumnDescriptor &column) {
    if (column.max_repetition_level() > 0) return LT_PARQUET_OTHER;
    const auto &logical = column.logical_type();
    const bool plain = logical == nullptr || logical->is_none();
    switch (column.physical_type()) {
    case parquet::Type::BYTE_ARRAY:
        return plain || logical->is_string() || logical->is_enum() || logical->is_JSON() ? LT_PARQUET_TEXT
                                                                                         : LT_PARQUET_OTHER;
    case parquet::Type::INT32:
    case parquet::Type::INT64:
        return plain || logical->is_int() ? LT_PARQUET_NUMBER : LT_PARQUET_OTHER;
    case parquet::Type::FLOAT:
    case parquet::Type::DOUBLE:
        return plain ? LT_PARQUET_NUMBER : LT_PARQUET_OTHER;
    default:
        return LT_PARQUET_OTHER;
    }
}

} // namespace

struct lt_parquet {
    Pool pool; // outlives the rest
    std::unique_ptr<parquet::ParquetFileReader> reader;
    std::vector<std::string> names, types;
    std::vector<lt_parquet_field> fields;
    std::vector<int64_t> group_rows;
    std::string created_by, compression;
    lt_parquet_description description;
};

struct lt_parquet_column {
    lt_parquet *file;
    std::string where; // "row group 0, column 'text'"
    const parquet::ColumnDescriptor *descriptor;
    lt_parquet_kind kind;
    int64_t group_rows, levels_expected, rows = 0, levels = 0;
    bool says_encodings;
    Pages *pages; // the reader's
    std::shared_ptr<parquet::ColumnReader> reader;
    int16_t definition[LT_PARQUET_BATCH], repetition[LT_PARQUET_BATCH];
    alignas(16) unsigned char values[LT_PARQUET_BATCH * sizeof(parquet::ByteArray)];
    bool null[LT_PARQUET_BATCH];
    lt_parquet_text text[LT_PARQUET_BATCH];
    double number[LT_PARQUET_BATCH];
};

namespace {

void describe_columns(lt_parquet &file, const parquet::SchemaDescriptor &schema) {
    for (int i = 0; i < schema.num_columns(); i++) {
        const parquet::ColumnDescriptor &column = *schema.Column(i);
        file.names.push_back(one_line(column.path()->ToDotString()));
        if (column.physical_type() < parquet::Type::BOOLEAN ||
            column.physical_type() > parquet::Type::FIXED_LEN_BYTE_ARRAY)
            broken("column '" + file.names.back() + "' has a type that Parquet does not know");
        file.types.push_back(type_of(column));
    }
    for (int i = 0; i < schema.num_columns(); i++) {
        const parquet::ColumnDescriptor &column = *schema.Column(i);
        const auto at = static_cast<size_t>(i);
        file.fields.push_back({file.names[at].c_str(), file.types[at].c_str(), kind_of(column),
                               column.max_definition_level() > column.max_repetition_level(),
                               column.max_repetition_level() > 0});
    }
}

// Checks what Arrow believes: row counts, and that each row group has the schema's columns.
void describe_groups(lt_parquet &file, const parquet::FileMetaData &metadata) {
    std::set<std::string> codecs;
    for (int group = 0; group < metadata.num_row_groups(); group++) {
        const std::string where = "row group " + std::to_string(group);
        const auto part = metadata.RowGroup(group);
        const int64_t rows = part->num_rows();
        if (rows < 0 || rows > std::numeric_limits<int64_t>::max() - file.description.rows)
            broken(where + " claims " + std::to_string(rows) + " rows");
        if (part->num_columns() != metadata.num_columns())
            broken(where + " has " + std::to_string(part->num_columns()) + " columns, the schema " +
                   std::to_string(metadata.num_columns()));
        file.description.rows += rows;
        file.group_rows.push_back(rows);
        for (int i = 0; i < part->num_columns(); i++) {
            const auto chunk = part->ColumnChunk(i);
            if (chunk->type() != metadata.schema()->Column(i)->physical_type())
                broken(where + ", column '" + file.names[static_cast<size_t>(i)] + "' is " +
                       parquet::TypeToString(chunk->type()) + ", in the schema " +
                       parquet::TypeToString(metadata.schema()->Column(i)->physical_type()));
            codecs.insert(arrow::util::Codec::GetCodecAsString(chunk->compression()));
        }
    }
    for (const std::string &codec : codecs)
        file.compression += (file.compression.empty() ? "" : ", ") + codec;
}

std::unique_ptr<lt_parquet> open_file(const lt_parquet_source &source) {
    auto file = std::make_unique<lt_parquet>();
    parquet::ReaderProperties properties(&file->pool);
    properties.enable_buffered_stream();
    properties.set_buffer_size(1 << 20);
    properties.set_page_checksum_verification(true);
    // No list or string of the footer and of page headers has more elements than the file has bytes.
    const auto most = [&](int64_t limit) { return static_cast<int32_t>(std::min(source.bytes, limit)); };
    properties.set_thrift_container_size_limit(most(parquet::kDefaultThriftContainerSizeLimit));
    properties.set_thrift_string_size_limit(most(parquet::kDefaultThriftStringSizeLimit));
    file->reader =
        parquet::ParquetFileReader::Open(std::make_shared<Source>(source, &file->pool), properties);
    const auto metadata = file->reader->metadata();
    if (metadata->is_encryption_algorithm_set()) broken("it is encrypted, which is not read");
    file->description = {};
    describe_columns(*file, *metadata->schema());
    describe_groups(*file, *metadata);
    file->created_by = one_line(metadata->created_by());
    file->description.created_by = file->created_by.c_str();
    file->description.compression = file->compression.c_str();
    file->description.groups = metadata->num_row_groups();
    file->description.columns = metadata->num_columns();
    file->description.group_rows = file->group_rows.data();
    file->description.fields = file->fields.data();
    return file;
}

std::unique_ptr<lt_parquet_column> make_column(lt_parquet *file, int group, int index) {
    auto column = std::make_unique<lt_parquet_column>();
    const auto part = file->reader->RowGroup(group);
    column->file = file;
    column->descriptor = file->reader->metadata()->schema()->Column(index);
    column->kind = file->fields[static_cast<size_t>(index)].kind;
    column->group_rows = file->group_rows[static_cast<size_t>(group)];
    column->levels_expected = part->metadata()->ColumnChunk(index)->num_values();
    column->says_encodings = !part->metadata()->ColumnChunk(index)->encodings().empty();
    auto pages = std::make_unique<Pages>(part->GetColumnPageReader(index));
    column->pages = pages.get();
    column->reader = parquet::ColumnReader::Make(column->descriptor, std::move(pages), &file->pool);
    return column;
}

// Arrow's readers take the levels of a page as they come; rows and values must fit them.
void check_levels(lt_parquet_column &column, int64_t levels, int64_t values, int64_t *begun) {
    const int16_t most_defined = column.descriptor->max_definition_level(),
                  most_repeated = column.descriptor->max_repetition_level();
    int64_t defined = most_defined == 0 ? levels : 0;
    *begun = most_repeated == 0 ? levels : 0;
    for (int64_t i = 0; i < levels && most_defined > 0; i++) {
        if (column.definition[i] < 0 || column.definition[i] > most_defined)
            broken("a definition level is " + std::to_string(column.definition[i]) + ", at most " +
                   std::to_string(most_defined) + " is possible");
        defined += column.definition[i] == most_defined;
    }
    for (int64_t i = 0; i < levels && most_repeated > 0; i++) {
        if (column.repetition[i] < 0 || column.repetition[i] > most_repeated)
            broken("a repetition level is " + std::to_string(column.repetition[i]) + ", at most " +
                   std::to_string(most_repeated) + " is possible");
        *begun += column.repetition[i] == 0;
    }
    if (most_repeated > 0 && column.levels == 0 && column.repetition[0] != 0)
        broken("its first repetition level is " + std::to_string(column.repetition[0]) + ", expected 0");
    if (defined != values)
        broken("its levels tell of " + std::to_string(defined) + " values, it has " + std::to_string(values));
}

void put(lt_parquet_column &column, int64_t row, const parquet::ByteArray &value) {
    column.text[row] = {reinterpret_cast<const char *>(value.ptr), value.len};
}
void put(lt_parquet_column &column, int64_t row, double value) {
    column.number[row] = value;
}

// Puts the values, which Arrow gives without the nulls, at their rows.
template <typename Value> void spread(lt_parquet_column &column, int64_t rows) {
    const auto *value = reinterpret_cast<const Value *>(column.values);
    const int16_t most = column.descriptor->max_definition_level();
    for (int64_t row = 0; row < rows; row++) {
        column.null[row] = most > 0 && column.definition[row] < most;
        if (!column.null[row]) put(column, row, *value++);
    }
}

template <typename Type> int64_t read_batch(lt_parquet_column &column) {
    using Value = typename Type::c_type;
    static_assert(sizeof(Value) <= sizeof(parquet::ByteArray), "a batch of every type fits");
    int64_t values = 0, begun;
    auto &reader = static_cast<parquet::TypedColumnReader<Type> &>(*column.reader);
    const int64_t levels = reader.ReadBatch(LT_PARQUET_BATCH, column.definition, column.repetition,
                                            reinterpret_cast<Value *>(column.values), &values);
    if (levels <= 0) broken("a page ends before its values do");
    check_levels(column, levels, values, &begun);
    column.levels += levels;
    column.rows += begun;
    if (column.rows > column.group_rows)
        broken("it has more than the " + std::to_string(column.group_rows) + " rows of the row group");
    if constexpr (std::is_same_v<Value, parquet::ByteArray> || std::is_arithmetic_v<Value>)
        if (column.kind != LT_PARQUET_OTHER) spread<Value>(column, levels);
    return begun;
}

int64_t read_rows(lt_parquet_column &column) {
    switch (column.descriptor->physical_type()) {
    case parquet::Type::BOOLEAN:
        return read_batch<parquet::BooleanType>(column);
    case parquet::Type::INT32:
        return read_batch<parquet::Int32Type>(column);
    case parquet::Type::INT64:
        return read_batch<parquet::Int64Type>(column);
    case parquet::Type::INT96:
        return read_batch<parquet::Int96Type>(column);
    case parquet::Type::FLOAT:
        return read_batch<parquet::FloatType>(column);
    case parquet::Type::DOUBLE:
        return read_batch<parquet::DoubleType>(column);
    case parquet::Type::BYTE_ARRAY:
        return read_batch<parquet::ByteArrayType>(column);
    case parquet::Type::FIXED_LEN_BYTE_ARRAY:
        return read_batch<parquet::FLBAType>(column);
    default:
        broken("its type is unknown");
    }
}

void check_end(const lt_parquet_column &column) {
    if (!column.says_encodings) broken("its metadata does not say how its pages are encoded");
    if (column.levels != column.levels_expected)
        broken("it has " + std::to_string(column.levels) + " values, its metadata says " +
               std::to_string(column.levels_expected));
    if (column.rows != column.group_rows)
        broken("it has " + std::to_string(column.rows) + " rows, the row group " +
               std::to_string(column.group_rows));
}

// ---- the table ----

lt_parquet *open(const lt_parquet_source *source, char *error) {
    try {
        return open_file(*source).release();
    } catch (const std::exception &e) {
        report("", e.what(), error);
    } catch (...) {
        report("", "an unknown exception", error);
    }
    return nullptr;
}

void close(lt_parquet *file) {
    delete file;
}

const lt_parquet_description *describe(const lt_parquet *file) {
    return &file->description;
}

lt_parquet_column *open_column(lt_parquet *file, int group, int index, char *error) {
    std::string where;
    try {
        where = "row group " + std::to_string(group) + ", column '" +
                file->names[static_cast<size_t>(index)] + "'";
        auto column = make_column(file, group, index);
        column->where = where;
        return column.release();
    } catch (const std::exception &e) {
        report(where + ": ", e.what(), error);
    } catch (...) {
        report(where + ": ", "an unknown exception", error);
    }
    return nullptr;
}

void close_column(lt_parquet_column *column) {
    delete column;
}

bool next(lt_parquet_column *column, lt_parquet_batch *batch, char *error) {
    const char *what;
    std::string kept;
    *batch = {0, false, column->null, column->text, column->number};
    try {
        if (column->reader->HasNext()) {
            batch->rows = read_rows(*column);
        } else {
            check_end(*column);
            batch->end = true;
        }
        return true;
    } catch (const std::exception &e) {
        kept = e.what();
        what = kept.c_str();
    } catch (...) {
        what = "an unknown exception";
    }
    report(column->where + ", page " + std::to_string(column->pages->number) + ": ", what, error);
    return false;
}

} // namespace

extern "C" const lt_parquet_table lt_parquet_plugin = {open,        close,        describe,
                                                       open_column, close_column, next};

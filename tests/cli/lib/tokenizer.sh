# shellcheck shell=bash
# A tokenizer small enough to see through, and shards of its tokens; for tests that need no published one.

# write_tokenizer FILE [MERGE...]: a tokenizer.json of byte-level BPE. Id N is byte N below 256; then `li`, `lin`, `line` and
# what each further merge ("a b") makes; last <|endoftext|>, 259 without further merges.
write_tokenizer() {
  perl -MJSON::PP -e 'my ($file, @merges) = @ARGV; @merges = ("l i", "li n", "lin e", @merges);
    my (%vocab, $n); # bytes that do not print are written as U+0100 and what follows
    for my $byte (0 .. 255) {
      my $prints = ($byte >= 33 && $byte <= 126) || ($byte >= 161 && $byte <= 172) || $byte >= 174;
      $vocab{chr($prints ? $byte : 256 + $n++)} = $byte;
    }
    for (@merges) { my $id = scalar keys %vocab; $vocab{s/ //r} = $id }
    my $end = {id => scalar keys %vocab, content => "<|endoftext|>", special => JSON::PP::true,
               map { $_ => JSON::PP::false } qw(single_word lstrip rstrip normalized)};
    my %bytes = (type => "ByteLevel", add_prefix_space => JSON::PP::false, trim_offsets => JSON::PP::true);
    open my $out, ">", $file or die;
    print $out JSON::PP->new->utf8->canonical->encode({version => "1.0", added_tokens => [$end], normalizer => undef,
      pre_tokenizer => {%bytes}, decoder => {%bytes}, model => {type => "BPE", vocab => \%vocab, merges => \@merges}})' "$@"
}

# write_text_shard FILE TEXT LINES: the tokens of a text of write_text(), an end of text (259) after every LINES lines.
write_text_shard() {
  perl -e 'my ($file, $text, $lines) = @ARGV; open my $in, "<:raw", $text or die; my ($n, @ids);
    while (<$in>) { push @ids, $_ eq "line" ? 258 : map { ord } split // for split /(line)/; push @ids, 259 if ++$n % $lines == 0 }
    open my $out, ">:raw", $file or die; print $out pack("l<256", 20240520, 1, scalar @ids, (0) x 253), pack("S<*", @ids)' "$@"
}

# write_ids FILE ID...: a shard of these tokens.
write_ids() {
  perl -e 'my $file = shift; open my $out, ">:raw", $file or die;
    print $out pack("l<256", 20240520, 1, scalar @ARGV, (0) x 253), pack("S<*", @ARGV)' "$@"
}

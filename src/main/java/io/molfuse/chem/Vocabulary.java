// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * SELFIES symbols as numbers: {@code <pad>} 0, {@code <sos>} 1, {@code <eos>} 2, {@code <unk>} 3, then symbols by falling frequency
 * in the training data, ties by their text. The dot between fragments is a symbol.
 *
 * <p>Thread-safe. Immutable but for a cache of the last sequences encoded, which holds at most {@value #CACHE_SIZE}.
 */
public final class Vocabulary {
  /** Fills up sequences. */
  public static final int PAD = 0;

  /** Starts a sequence. */
  public static final int SOS = 1;

  /** Ends a sequence. */
  public static final int EOS = 2;

  /** Stands for symbols that are not in the vocabulary. */
  public static final int UNK = 3;

  /** Number of tokens that are not symbols. */
  public static final int SPECIAL = 4;

  private static final List<String> SPECIAL_TOKENS = List.of("<pad>", "<sos>", "<eos>", "<unk>");
  private static final int CACHE_SIZE = 4096;
  private static final String FORMAT = "molfuse-vocabulary";
  private static final int VERSION = 1;

  private final List<String> tokens;
  private final Map<String, Integer> ids;
  private final Map<String, int[]> cache =
      new LinkedHashMap<>(64, 0.75f, true) {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String, int[]> eldest) {
          return size() > CACHE_SIZE;
        }
      };

  private Vocabulary(List<String> tokens) {
    this.tokens = List.copyOf(tokens);
    this.ids = new HashMap<>();
    for (int id = 0; id < tokens.size(); id++) {
      ids.put(tokens.get(id), id);
    }
  }

  /**
   * Counts the symbols of training data.
   *
   * @param selfies SELFIES strings
   * @param maxVocab most tokens of the vocabulary, the special ones among them; at least 5
   * @return the vocabulary
   * @throws SelfiesException if a string has a bracket that is not closed
   */
  public static Vocabulary build(Iterable<String> selfies, int maxVocab) {
    Map<String, Long> counts = new HashMap<>();
    for (String text : selfies) {
      for (String symbol : Selfies.split(text)) {
        counts.merge(symbol, 1L, Long::sum);
      }
    }
    return fromCounts(counts, maxVocab);
  }

  /**
   * @param counts how often each symbol occurs
   * @param maxVocab most tokens of the vocabulary, the special ones among them; at least 5
   * @return the vocabulary
   */
  public static Vocabulary fromCounts(Map<String, Long> counts, int maxVocab) {
    if (maxVocab <= SPECIAL) {
      throw new IllegalArgumentException("maxVocab must be at least " + (SPECIAL + 1) + ", but is " + maxVocab);
    }
    List<String> tokens = new ArrayList<>(SPECIAL_TOKENS);
    counts.entrySet().stream()
        .sorted(Map.Entry.<String, Long>comparingByValue(Comparator.reverseOrder()).thenComparing(Map.Entry.comparingByKey()))
        .limit(maxVocab - SPECIAL)
        .forEach(entry -> tokens.add(entry.getKey()));
    return of(tokens);
  }

  /**
   * @param tokens all tokens in the order of their numbers, beginning with the special ones
   * @return the vocabulary
   * @throws IllegalArgumentException if the special tokens are not there, or a token is there twice or is no SELFIES symbol
   */
  public static Vocabulary of(List<String> tokens) {
    if (tokens.size() < SPECIAL || !tokens.subList(0, SPECIAL).equals(SPECIAL_TOKENS)) {
      throw new IllegalArgumentException("vocabulary must begin with " + SPECIAL_TOKENS);
    }
    Set<String> seen = new HashSet<>(SPECIAL_TOKENS);
    for (String token : tokens.subList(SPECIAL, tokens.size())) {
      boolean symbol = token != null && (token.equals(".") || (token.startsWith("[") && token.indexOf(']') == token.length() - 1));
      if (!symbol) {
        throw new IllegalArgumentException("token of a vocabulary must be a SELFIES symbol, but is " + token);
      }
      if (!seen.add(token)) {
        throw new IllegalArgumentException("token " + token + " is in the vocabulary twice");
      }
    }
    return new Vocabulary(tokens);
  }

  /**
   * Reads what {@link #save} wrote.
   *
   * @param file a JSON file
   * @return the vocabulary
   * @throws ChemDataException naming the file, if it cannot be read or holds no vocabulary
   */
  public static Vocabulary load(Path file) {
    JsonNode root;
    try {
      root = new ObjectMapper().readTree(Files.readAllBytes(file));
    } catch (NoSuchFileException e) {
      throw new ChemDataException(file, "there is no such vocabulary file", e);
    } catch (JsonProcessingException e) {
      throw new ChemDataException(file, "the vocabulary is not valid JSON: " + e.getOriginalMessage(), e);
    } catch (IOException e) {
      throw new ChemDataException(file, "the vocabulary cannot be read: " + e.getMessage(), e);
    }
    if (!FORMAT.equals(root.path("format").asText())) {
      throw new ChemDataException(file, "this is no vocabulary: the field format must be " + FORMAT, (Throwable) null);
    }
    if (root.path("version").asInt() != VERSION) {
      String found = root.path("version").asText();
      throw new ChemDataException(file, "the vocabulary has version " + found + ", known is " + VERSION, (Throwable) null);
    }
    List<String> tokens = new ArrayList<>();
    for (JsonNode token : root.path("tokens")) {
      if (!token.isTextual()) {
        throw new ChemDataException(file, "the vocabulary holds " + token + ", which is no token", (Throwable) null);
      }
      tokens.add(token.textValue());
    }
    try {
      return of(tokens);
    } catch (IllegalArgumentException e) {
      throw new ChemDataException(file, e.getMessage(), e);
    }
  }

  /**
   * Writes a JSON file. The file is replaced as a whole: a crash leaves the old one.
   *
   * @param file where to
   * @throws ChemDataException naming the file, if it cannot be written
   */
  public void save(Path file) {
    ObjectMapper mapper = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);
    ObjectNode root = mapper.createObjectNode().put("format", FORMAT).put("version", VERSION);
    ArrayNode array = root.putArray("tokens");
    tokens.forEach(array::add);
    Path target = file.toAbsolutePath();
    Path partial = target.resolveSibling(target.getFileName() + ".partial");
    try {
      Files.write(partial, mapper.writeValueAsBytes(root));
      Files.move(partial, target, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      throw new ChemDataException(file, "the vocabulary cannot be written: " + e.getMessage(), e);
    }
  }

  /** @return number of tokens, the special ones among them */
  public int size() {
    return tokens.size();
  }

  /**
   * @param token a SELFIES symbol or a special token
   * @return its number, {@link #UNK} if it has none
   */
  public int id(String token) {
    return ids.getOrDefault(token, UNK);
  }

  /**
   * @param id 0 to size-1
   * @return the token
   */
  public String token(int id) {
    if (id < 0 || id >= tokens.size()) {
      throw new IndexOutOfBoundsException("token must be 0 to " + (tokens.size() - 1) + ", but is " + id);
    }
    return tokens.get(id);
  }

  /** @return all tokens in the order of their numbers; unmodifiable */
  public List<String> tokens() {
    return tokens;
  }

  /**
   * @param selfies a SELFIES string
   * @param maxLength most tokens of the result, at least 2
   * @return {@code <sos>}, the symbols, {@code <eos>}; a sequence that is too long is cut and still ends in {@code <eos>}
   * @throws SelfiesException if a bracket is not closed
   */
  public int[] encode(String selfies, int maxLength) {
    if (maxLength < 2) {
      throw new IllegalArgumentException("maxLength must be at least 2, but is " + maxLength);
    }
    int[] symbols;
    synchronized (cache) {
      symbols = cache.get(selfies);
    }
    if (symbols == null) {
      symbols = Selfies.split(selfies).stream().mapToInt(this::id).toArray();
      synchronized (cache) {
        cache.put(selfies, symbols);
      }
    }
    int length = Math.min(symbols.length + 2, maxLength);
    int[] sequence = new int[length];
    sequence[0] = SOS;
    System.arraycopy(symbols, 0, sequence, 1, length - 2);
    sequence[length - 1] = EOS;
    return sequence;
  }

  /**
   * @param sequence tokens
   * @return the symbols up to the first {@code <eos>}, without {@code <pad>}, {@code <sos>} and {@code <unk>}
   * @throws IndexOutOfBoundsException if a number is not in the vocabulary
   */
  public String decode(int[] sequence) {
    StringBuilder text = new StringBuilder(4 * sequence.length);
    for (int id : sequence) {
      if (!append(id, text)) {
        break;
      }
    }
    return text.toString();
  }

  /**
   * As {@link #decode(int[])} for a part of an array, such as a row of [B,T].
   *
   * @param sequence tokens
   * @param from first position
   * @param to position after the last
   * @return the symbols
   */
  public String decode(long[] sequence, int from, int to) {
    return decode(Arrays.stream(sequence, from, to).mapToInt(Math::toIntExact).toArray());
  }

  private boolean append(int id, StringBuilder text) {
    String token = token(id);
    if (id >= SPECIAL) {
      text.append(token);
    }
    return id != EOS;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Vocabulary that && tokens.equals(that.tokens);
  }

  @Override
  public int hashCode() {
    return tokens.hashCode();
  }

  @Override
  public String toString() {
    return "Vocabulary[size=" + size() + "]";
  }
}

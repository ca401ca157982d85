// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * SELFIES symbols as numbers: {@code <pad>} 0, {@code <sos>} 1, {@code <eos>} 2, {@code <unk>} 3, then symbols by falling frequency
 * in the training data, ties by their text. The dot between fragments is a symbol.
 *
 * <p>Immutable and thread-safe.
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

  private final List<String> tokens;
  private final Map<String, Integer> ids;
  /** Numbers of tokens by their hashes, with linear probing, at most a quarter full; -1 is free. */
  private final int[] slots;

  private Vocabulary(List<String> tokens) {
    this.tokens = List.copyOf(tokens);
    this.ids = new HashMap<>();
    for (int id = 0; id < tokens.size(); id++) {
      ids.put(tokens.get(id), id);
    }
    slots = new int[Math.max(16, 4 * Integer.highestOneBit(2 * tokens.size() - 1))];
    Arrays.fill(slots, -1);
    for (int id = SPECIAL; id < tokens.size(); id++) {
      int hash = tokens.get(id).hashCode();
      int slot = (hash ^ hash >>> 13) & slots.length - 1;
      while (slots[slot] >= 0) {
        slot = slot + 1 & slots.length - 1;
      }
      slots[slot] = id;
    }
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
    int most = 2;
    for (int i = 0; i < selfies.length(); i++) {
      char c = selfies.charAt(i);
      most += c == ']' || c == '.' ? 1 : 0;
    }
    int[] sequence = new int[Math.min(most, maxLength)];
    sequence[0] = SOS;
    int count = 1;
    for (int left = selfies.indexOf('['); left >= 0 && left < selfies.length(); ) {
      int to = left + 1;
      int hash = '[';
      // One pass over the characters: they decide the slot, and only the token there is compared.
      for (char c = 0; c != ']'; to++) {
        if (to >= selfies.length()) {
          throw new SelfiesException(selfies, "bracket [ is not closed", left);
        }
        c = selfies.charAt(to);
        hash = 31 * hash + c;
      }
      count = put(sequence, count, id(selfies, left, to, hash));
      left = to;
      if (left < selfies.length() && selfies.charAt(left) == '.') {
        count = put(sequence, count, id("."));
        left++;
      }
    }
    // Dots within brackets are no symbols.
    sequence = count + 1 < sequence.length ? Arrays.copyOf(sequence, count + 1) : sequence;
    sequence[sequence.length - 1] = EOS;
    return sequence;
  }

  /** What does not fit is left out. */
  private static int put(int[] sequence, int count, int id) {
    if (count < sequence.length - 1) {
      sequence[count++] = id;
    }
    return count;
  }

  /** The number of text[from, to), which has a hash as String computes it. */
  private int id(String text, int from, int to, int hash) {
    int mask = slots.length - 1;
    for (int slot = (hash ^ hash >>> 13) & mask; slots[slot] >= 0; slot = slot + 1 & mask) {
      String token = tokens.get(slots[slot]);
      if (token.length() == to - from && text.startsWith(token, from)) {
        return slots[slot];
      }
    }
    return UNK;
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

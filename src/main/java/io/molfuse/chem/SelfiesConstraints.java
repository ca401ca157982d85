// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.SortedSet;
import java.util.TreeSet;

/**
 * How many bonds an atom of a given element and charge may have, counting a double bond as two and explicit hydrogens as one
 * each. Immutable and thread-safe.
 *
 * <p>The presets are those of the Python package selfies 2.2, which corrected the charged C, P and S of 2.1.
 */
public final class SelfiesConstraints {
  /** The key that stands for every atom that is not listed. */
  public static final String OTHERS = "?";

  // Charges beyond this are looked up in the map: no molecule in practice has them.
  private static final int MAX_CHARGE = 8;
  private static final int CHARGES = 2 * MAX_CHARGE + 1;

  private static final SelfiesConstraints STANDARD =
      new SelfiesConstraints(
          parse(
              "H 1 F 1 Cl 1 Br 1 I 1 B 3 B+1 2 B-1 4 O 2 O+1 3 O-1 1 N 3 N+1 4 N-1 2 C 4 C+1 3 C-1 3 P 5 P+1 4 P-1 6"
                  + " S 6 S+1 5 S-1 5 ? 8"));
  private static final SelfiesConstraints OCTET_RULE = STANDARD.changed("S 2 S+1 3 S-1 1 P 3 P+1 4 P-1 2");
  private static final SelfiesConstraints HYPERVALENT = STANDARD.changed("Cl 7 Br 7 I 7 N 5");

  private final Map<String, Integer> capacities;
  private final int others;
  private final int[] table = new int[Elements.COUNT * CHARGES];

  private SelfiesConstraints(Map<String, Integer> capacities) {
    this.capacities = Collections.unmodifiableMap(new LinkedHashMap<>(capacities));
    this.others = capacities.get(OTHERS);
    Arrays.fill(table, others);
    capacities.forEach(
        (key, value) -> {
          int sign = signAt(key);
          int number = Elements.inSelfies(sign < 0 ? key : key.substring(0, sign));
          int charge = sign < 0 ? 0 : chargeOf(key, sign);
          if (number != 0 && Math.abs(charge) <= MAX_CHARGE) {
            table[number * CHARGES + charge + MAX_CHARGE] = value;
          }
        });
  }

  /** @return the preset "default" */
  public static SelfiesConstraints standard() {
    return STANDARD;
  }

  /**
   * @param name "default"; "octet_rule", where P and S obey the octet rule; or "hypervalent", where Cl, Br and I may have 7 bonds
   *     and N may have 5
   * @return the preset of that name
   * @throws IllegalArgumentException if there is none
   */
  public static SelfiesConstraints preset(String name) {
    switch (name) {
      case "default":
        return STANDARD;
      case "octet_rule":
        return OCTET_RULE;
      case "hypervalent":
        return HYPERVALENT;
      default:
        throw new IllegalArgumentException("preset must be default, octet_rule or hypervalent, but is " + name);
    }
  }

  /**
   * Constraints of one's own. The check is that of the Python package, but for charges such as +0 and +01: they match no atom, and
   * are refused here.
   *
   * @param capacities from an atom, written as an element or an element with a signed charge ("C", "N+1", "O-1"), to its greatest
   *     number of bonds, at least 0; must hold {@link #OTHERS}
   * @return the constraints
   * @throws IllegalArgumentException naming the entry that is wrong
   */
  public static SelfiesConstraints of(Map<String, Integer> capacities) {
    if (!capacities.containsKey(OTHERS)) {
      throw new IllegalArgumentException("constraints must hold the key ?, which stands for all atoms not listed");
    }
    capacities.forEach(
        (key, value) -> {
          if (!OTHERS.equals(key) && !isAtom(key)) {
            throw new IllegalArgumentException(
                "key of a constraint must be an element with an optional charge such as N+1, but is " + key);
          }
          if (value == null || value < 0) {
            throw new IllegalArgumentException("number of bonds of " + key + " must be at least 0, but is " + value);
          }
        });
    return new SelfiesConstraints(capacities);
  }

  /**
   * @param element symbol of an element
   * @param charge formal charge
   * @return the greatest number of bonds of such an atom
   */
  public int capacity(String element, int charge) {
    int number = Elements.inSelfies(element);
    if (number == 0) {
      throw new IllegalArgumentException("element must be one that SELFIES knows, but is " + element);
    }
    return capacity(number, charge);
  }

  int capacity(int number, int charge) {
    if (charge >= -MAX_CHARGE && charge <= MAX_CHARGE) {
      return table[number * CHARGES + charge + MAX_CHARGE];
    }
    return capacities.getOrDefault(key(Elements.symbol(number), charge), others);
  }

  /** @return the constraints as {@link #of} takes them; unmodifiable */
  public Map<String, Integer> asMap() {
    return capacities;
  }

  /**
   * The symbols whose random strings the grammar turns into molecules that obey these constraints: every listed atom behind every
   * bond it can have, the branch and ring symbols, and the symbols that stand for numbers.
   *
   * @return the symbols in the order of their text
   */
  public SortedSet<String> robustAlphabet() {
    SortedSet<String> alphabet = new TreeSet<>();
    String[] bonds = {"", "=", "#"};
    capacities.forEach(
        (atom, capacity) -> {
          // A charge with the digit 0 is no part of the grammar. The reference lists such symbols, which it cannot decode.
          boolean symbol = !OTHERS.equals(atom) && atom.indexOf('0') < 0;
          for (int order = 1; order <= Math.min(3, capacity) && symbol; order++) {
            alphabet.add("[" + bonds[order - 1] + atom + "]");
          }
        });
    for (int digits = 1; digits <= 3; digits++) {
      alphabet.add("[Ring" + digits + "]");
      alphabet.add("[=Ring" + digits + "]");
      for (String bond : bonds) {
        alphabet.add("[" + bond + "Branch" + digits + "]");
      }
    }
    alphabet.addAll(SelfiesSymbol.INDEX_ALPHABET);
    return alphabet;
  }

  private SelfiesConstraints changed(String entries) {
    Map<String, Integer> map = new LinkedHashMap<>(capacities);
    map.putAll(parse(entries));
    return new SelfiesConstraints(map);
  }

  private static Map<String, Integer> parse(String entries) {
    Map<String, Integer> map = new LinkedHashMap<>();
    String[] words = entries.split(" ");
    for (int i = 0; i < words.length; i += 2) {
      map.put(words[i], Integer.valueOf(words[i + 1]));
    }
    return map;
  }

  private static int signAt(String key) {
    return Math.max(key.indexOf('+'), key.indexOf('-'));
  }

  private static int chargeOf(String key, int sign) {
    return Integer.parseInt(key.substring(sign));
  }

  private static boolean isAtom(String key) {
    int sign = signAt(key);
    return Elements.inSelfies(sign < 0 ? key : key.substring(0, sign)) != 0
        && (sign < 0 || key.substring(sign + 1).matches("[1-9][0-9]{0,8}"));
  }

  private static String key(String element, int charge) {
    return charge == 0 ? element : String.format(Locale.ROOT, "%s%+d", element, charge);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof SelfiesConstraints that && capacities.equals(that.capacities);
  }

  @Override
  public int hashCode() {
    return capacities.hashCode();
  }

  @Override
  public String toString() {
    return "SelfiesConstraints" + capacities;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.List;
import java.util.SortedSet;
import java.util.TreeSet;

/**
 * Translates between SMILES and SELFIES (Krenn et al., Mach. Learn.: Sci. Technol. 1 (2020) 045024; Lo et al., Digital Discovery
 * 2 (2023) 897). Any string of symbols from {@link SelfiesConstraints#robustAlphabet()} is the SELFIES of a molecule that obeys
 * the constraints.
 *
 * <p>The strings equal those of the Python package selfies 2.2.0, in both directions and for every input that package accepts, but
 * for these cases of no chemical use: characters outside ASCII and numbers of ten digits or more are errors here. As there, ring
 * numbers in decoded SMILES are not used again, so that a molecule with more than 99 rings gets SMILES that other programs cannot
 * read. Nesting of branches is limited by memory only, where the Python package stops at its recursion limit.
 *
 * <p>Immutable and thread-safe.
 */
public final class Selfies {
  /** About the mean length of symbols. */
  private static final int SYMBOL_LENGTH = 5;

  private static final Selfies STANDARD = new Selfies(SelfiesConstraints.standard());

  private final SelfiesConstraints constraints;

  private Selfies(SelfiesConstraints constraints) {
    this.constraints = constraints;
  }

  /** @return the translator with the preset "default" */
  public static Selfies standard() {
    return STANDARD;
  }

  /**
   * @param constraints how many bonds an atom may have
   * @return a translator with these constraints
   */
  public static Selfies with(SelfiesConstraints constraints) {
    return new Selfies(constraints);
  }

  /** @return how many bonds an atom may have */
  public SelfiesConstraints constraints() {
    return constraints;
  }

  /**
   * Encodes a molecule that obeys the constraints. Atoms keep their order. Aromatic bonds are kekulised.
   *
   * @param smiles without the wildcard, quadruple bonds, chirality other than @ and @@, and ring bonds across a dot
   * @return the SELFIES string
   * @throws SelfiesException if the SMILES is malformed, cannot be kekulised, or breaks the constraints
   */
  public String encode(String smiles) {
    return encode(smiles, true);
  }

  /**
   * @param smiles as for {@link #encode(String)}
   * @param strict false encodes molecules that break the constraints too; decoding then gives another molecule
   * @return the SELFIES string
   * @throws SelfiesException if the SMILES is malformed, cannot be kekulised, or, if strict, breaks the constraints
   */
  public String encode(String smiles, boolean strict) {
    return new SelfiesEncoder(smiles, constraints, strict).encode();
  }

  /**
   * Decodes a string of symbols.
   *
   * @param selfies symbols in square brackets, fragments parted by dots; "[nop]" is skipped, "[epsilon]" ends a chain
   * @return the SMILES string, not canonical; empty if there is no atom
   * @throws SelfiesException if a bracket is not closed or a symbol in use is not part of the grammar
   */
  public String decode(String selfies) {
    return new SelfiesDecoder(selfies, constraints).decode();
  }

  /**
   * Cuts a string into its symbols, with dots between fragments as symbols of their own.
   *
   * @param selfies a SELFIES string
   * @return the symbols
   * @throws SelfiesException if a bracket is not closed
   */
  public static List<String> split(String selfies) {
    List<String> symbols = new ArrayList<>(selfies.length() / SYMBOL_LENGTH + 2);
    int length = selfies.length();
    int left = selfies.indexOf('[');
    while (left >= 0 && left < length) {
      SelfiesSymbol symbol = SelfiesSymbol.at(selfies, left);
      if (symbol == null) {
        throw new SelfiesException(selfies, "bracket [ is not closed", left);
      }
      symbols.add(symbol.text);
      left += symbol.text.length();
      if (left < length && selfies.charAt(left) == '.') {
        symbols.add(".");
        left++;
      }
    }
    return symbols;
  }

  /**
   * @param selfies a SELFIES string
   * @return the number of its symbols, counting dots
   */
  public static int length(String selfies) {
    int count = 0;
    for (int i = 0; i < selfies.length(); i++) {
      char c = selfies.charAt(i);
      count += c == '[' || c == '.' ? 1 : 0;
    }
    return count;
  }

  /**
   * @param selfies SELFIES strings
   * @return the symbols that occur, without the dot, in the order of their text
   * @throws SelfiesException if a bracket is not closed
   */
  public static SortedSet<String> alphabet(Iterable<String> selfies) {
    SortedSet<String> alphabet = new TreeSet<>();
    for (String text : selfies) {
      alphabet.addAll(split(text));
    }
    alphabet.remove(".");
    return alphabet;
  }
}

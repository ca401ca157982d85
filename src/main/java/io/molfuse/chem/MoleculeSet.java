// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ForkJoinPool;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;

/**
 * What the comparison of two sets of molecules needs to know of each: fingerprints, fragments, scaffolds and properties. Strings that are
 * no molecules are left out. Immutable.
 */
public final class MoleculeSet {
  private final List<String> canonical;
  private final long[] fingerprints;
  private final int[] bits;
  private final Map<Long, Integer> fragments;
  private final Map<Long, Integer> scaffolds;
  private final double[][] values;
  private final int[] places;
  private final int given;

  private record Part(
      String canonical, long[] fingerprint, long[] fragments, long scaffold, double[] values) {}

  private MoleculeSet(List<Part> parts, int[] places, int given) {
    this.places = places;
    this.given = given;
    canonical = parts.stream().map(Part::canonical).toList();
    fingerprints = new long[parts.size() * MorganFingerprint.WORDS];
    bits = new int[parts.size()];
    fragments = new HashMap<>();
    scaffolds = new HashMap<>();
    values = new double[Value.values().length][parts.size()];
    for (int i = 0; i < parts.size(); i++) {
      Part part = parts.get(i);
      for (int word = 0; word < MorganFingerprint.WORDS; word++) {
        fingerprints[i * MorganFingerprint.WORDS + word] = part.fingerprint()[word];
        bits[i] += Long.bitCount(part.fingerprint()[word]);
      }
      for (long fragment : part.fragments()) {
        fragments.merge(fragment, 1, Integer::sum);
      }
      if (part.scaffold() != 0) {
        scaffolds.merge(part.scaffold(), 1, Integer::sum);
      }
      for (int v = 0; v < values.length; v++) {
        values[v][i] = part.values()[v];
      }
    }
  }

  /** Properties whose distributions are compared. */
  public enum Value {
    /** Average molecular weight in g/mol. */
    WEIGHT,
    /** Octanol-water partition coefficient. */
    LOG_P,
    /** Drug-likeness, 0 to 1. */
    QED,
    /** Synthetic accessibility, 1 to 10. */
    SYNTHETIC_ACCESSIBILITY
  }

  /**
   * Reads molecules and computes what is compared.
   *
   * @param smiles strings, in the order that counts for the first k
   * @param threads number of threads, at least 1
   * @return the set of those that are molecules
   */
  public static MoleculeSet of(List<String> smiles, int threads) {
    Part[] parts = new Part[smiles.size()];
    forEach(threads, parts.length, i -> parts[i] = part(smiles.get(i)));
    int[] places = IntStream.range(0, parts.length).filter(i -> parts[i] != null).toArray();
    return new MoleculeSet(Arrays.stream(places).mapToObj(i -> parts[i]).toList(), places, parts.length);
  }

  private static Part part(String smiles) {
    try {
      PerceivedMolecule molecule = PerceivedMolecule.of(smiles);
      MolecularProperties properties = MolecularProperties.of(molecule);
      double[] values = {properties.weight(), properties.logP(), properties.qed(), SyntheticAccessibility.score(molecule)};
      return new Part(
          MoleculeParser.canonical(smiles),
          MorganFingerprint.bits(molecule),
          Fragments.brics(molecule),
          Fragments.scaffold(molecule),
          values);
    } catch (MoleculeException e) {
      return null;
    }
  }

  private static void forEach(int threads, int count, IntConsumer work) {
    if (threads < 1) {
      throw new IllegalArgumentException("threads must be at least 1, but is " + threads);
    }
    ForkJoinPool pool = new ForkJoinPool(threads);
    try {
      pool.submit(() -> IntStream.range(0, count).parallel().forEach(work)).join();
    } finally {
      pool.shutdown();
    }
  }

  /** @return number of strings that were given, molecules or not */
  public int given() {
    return given;
  }

  /** @return number of molecules, the same one counted as often as it was given */
  public int size() {
    return canonical.size();
  }

  /** @return the molecules' canonical SMILES in the order given */
  public List<String> canonical() {
    return canonical;
  }

  /**
   * Which of the given strings a molecule is.
   *
   * @param molecule 0 to size-1
   * @return 0 to given-1
   */
  public int place(int molecule) {
    return places[molecule];
  }

  /**
   * The values of a property.
   *
   * @param value which one
   * @return [size], in the order given
   */
  public double[] values(Value value) {
    return values[value.ordinal()].clone();
  }

  /**
   * The share of molecules that pass {@link StructureFilters}, which takes longer than all the rest together.
   *
   * @param threads number of threads
   * @return 0 to 1; NaN without molecules
   */
  public double passing(int threads) {
    boolean[] passes = new boolean[size()];
    forEach(threads, passes.length, i -> passes[i] = StructureFilters.reason(canonical.get(i)).isEmpty());
    return (double) IntStream.range(0, passes.length).filter(i -> passes[i]).count() / size();
  }

  /**
   * The share of different molecules among the first ones.
   *
   * @param first how many of them; if there are fewer, all
   * @return unique@k; NaN without molecules
   */
  public double unique(int first) {
    int count = Math.min(first, size());
    return (double) canonical.subList(0, count).stream().distinct().count() / count;
  }

  /**
   * How much molecules differ among themselves: 1 less the mean over molecules of (mean of T^p)^(1/p), T the Tanimoto similarity to
   * every molecule, itself included.
   *
   * @param power p: 1 for IntDiv1, 2 for IntDiv2
   * @param threads number of threads
   * @return 0 to 1; NaN without molecules
   */
  public double internalDiversity(int power, int threads) {
    double[] means = new double[size()];
    forEach(threads, size(), i -> {
      double sum = 0;
      for (int j = 0; j < size(); j++) {
        double similarity = similarity(this, i, this, j);
        sum += power == 1 ? similarity : Math.pow(similarity, power);
      }
      means[i] = power == 1 ? sum / size() : Math.pow(sum / size(), 1.0 / power);
    });
    return 1 - Arrays.stream(means).average().orElse(Double.NaN);
  }

  /**
   * The mean similarity of these molecules to the nearest of a reference set.
   *
   * @param reference another set
   * @param threads number of threads
   * @return SNN, 0 to 1; NaN without molecules
   */
  public double nearestNeighbour(MoleculeSet reference, int threads) {
    double[] nearest = new double[size()];
    forEach(threads, size(), i -> {
      for (int j = 0; j < reference.size(); j++) {
        nearest[i] = Math.max(nearest[i], similarity(this, i, reference, j));
      }
    });
    return reference.size() == 0 ? Double.NaN : Arrays.stream(nearest).average().orElse(Double.NaN);
  }

  private static double similarity(MoleculeSet first, int i, MoleculeSet second, int j) {
    int both = 0;
    int a = i * MorganFingerprint.WORDS;
    int b = j * MorganFingerprint.WORDS;
    for (int word = 0; word < MorganFingerprint.WORDS; word++) {
      both += Long.bitCount(first.fingerprints[a + word] & second.fingerprints[b + word]);
    }
    int either = first.bits[i] + second.bits[j] - both;
    return either == 0 ? 1 : (double) both / either;
  }

  /**
   * The cosine between the counts of BRICS fragments.
   *
   * @param other another set
   * @return 0 to 1; NaN if a set has no molecule
   */
  public double fragmentSimilarity(MoleculeSet other) {
    return cosine(fragments, other.fragments);
  }

  /**
   * The cosine between the counts of Bemis-Murcko scaffolds of two rings or more.
   *
   * @param other another set
   * @return 0 to 1; NaN if a set has no such scaffold
   */
  public double scaffoldSimilarity(MoleculeSet other) {
    return cosine(scaffolds, other.scaffolds);
  }

  private static double cosine(Map<Long, Integer> first, Map<Long, Integer> second) {
    double product = 0;
    for (Map.Entry<Long, Integer> entry : first.entrySet()) {
      product += (double) entry.getValue() * second.getOrDefault(entry.getKey(), 0);
    }
    return product / (length(first) * length(second));
  }

  private static double length(Map<Long, Integer> counts) {
    return Math.sqrt(counts.values().stream().mapToDouble(count -> (double) count * count).sum());
  }

  /**
   * The first Wasserstein distance between the distributions of a property: the area between the two cumulative distributions.
   *
   * @param other another set
   * @param value which property
   * @return in the property's unit; NaN if a set has no molecule
   */
  public double distance(MoleculeSet other, Value value) {
    return wasserstein(values(value), other.values(value));
  }

  /** Sorts both arrays. */
  static double wasserstein(double[] first, double[] second) {
    if (first.length == 0 || second.length == 0) {
      return Double.NaN;
    }
    Arrays.sort(first);
    Arrays.sort(second);
    double area = 0;
    double last = Math.min(first[0], second[0]);
    int i = 0;
    int j = 0;
    while (i < first.length || j < second.length) {
      boolean fromFirst = j == second.length || (i < first.length && first[i] <= second[j]);
      double next = fromFirst ? first[i] : second[j];
      area += Math.abs((double) i / first.length - (double) j / second.length) * (next - last);
      last = next;
      i += fromFirst ? 1 : 0;
      j += fromFirst ? 0 : 1;
    }
    return area;
  }
}

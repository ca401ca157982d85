// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.Vocabulary;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;

/**
 * The sequences of one molecule that a beam search keeps. The greedy one stays among them however unlikely its beginning is, so that the
 * result is never less likely than it.
 */
final class Beam {
  /**
   * A sequence.
   *
   * @param tokens its symbols so far
   * @param ended whether it has come to its end
   * @param score logarithm of its probability
   */
  record Sequence(int[] tokens, boolean ended, double score) {}

  private record Candidate(int parent, int token, double score) {}

  private final int width;
  private final List<Candidate> candidates;
  private List<Sequence> open = List.of(new Sequence(new int[0], false, 0));
  private int[] rows = new int[0];
  private Sequence ended;

  /** Which open sequence takes the most likely token at each step; -1 when that one has ended. */
  private int greedy;

  Beam(int width, int vocabularySize) {
    this.width = width;
    candidates = new ArrayList<>(vocabularySize);
  }

  /** Sequences that go on. */
  int size() {
    return open.size();
  }

  /** Considers all continuations of a sequence. */
  void offer(int index, double[] logProbabilities) {
    double score = open.get(index).score();
    for (int token = 0; token < logProbabilities.length; token++) {
      if (logProbabilities[token] > Double.NEGATIVE_INFINITY) {
        candidates.add(new Candidate(index, token, score + logProbabilities[token]));
      }
    }
  }

  /**
   * Keeps the best continuations, and always the greedy one.
   *
   * @param firstRow the batch's row of the first of the sequences so far
   */
  void advance(int firstRow) {
    // Sorting is stable, so that of equally likely tokens the first is taken, as in greedy decoding.
    candidates.sort(Comparator.comparingDouble(Candidate::score).reversed());
    Candidate greedyNext = candidates.stream().filter(candidate -> candidate.parent() == greedy).findFirst().orElse(null);
    List<Candidate> kept = new ArrayList<>(width);
    for (int rank = 0; rank < candidates.size() && kept.size() < width; rank++) {
      Candidate candidate = candidates.get(rank);
      if (candidate.token() != Vocabulary.EOS) {
        kept.add(candidate);
      } else if (rank < width) {
        end(candidate);
      }
    }
    if (greedyNext != null && greedyNext.token() == Vocabulary.EOS) {
      end(greedyNext);
    } else if (greedyNext != null && !kept.contains(greedyNext)) {
      kept.set(kept.size() - 1, greedyNext);
    }
    greedy = kept.indexOf(greedyNext);
    List<Sequence> next = kept.stream().map(this::continued).toList();
    rows = kept.stream().mapToInt(candidate -> firstRow + candidate.parent()).toArray();
    candidates.clear();
    boolean decided = ended != null && (next.isEmpty() || ended.score() >= next.get(0).score());
    open = decided ? List.of() : next;
  }

  private void end(Candidate candidate) {
    if (ended == null || candidate.score() > ended.score()) {
      ended = new Sequence(open.get(candidate.parent()).tokens(), true, candidate.score());
    }
  }

  private Sequence continued(Candidate candidate) {
    int[] parent = open.get(candidate.parent()).tokens();
    int[] tokens = Arrays.copyOf(parent, parent.length + 1);
    tokens[parent.length] = candidate.token();
    return new Sequence(tokens, false, candidate.score());
  }

  /** The batch's row before {@link #advance} that an open sequence continues. */
  int row(int index) {
    return rows[index];
  }

  int lastToken(int index) {
    int[] tokens = open.get(index).tokens();
    return tokens[tokens.length - 1];
  }

  /** The most likely sequence, ended or not. */
  Sequence best() {
    return ended != null && (open.isEmpty() || ended.score() >= open.get(0).score()) ? ended : open.get(0);
  }
}

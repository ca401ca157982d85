// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeGraph;
import io.molfuse.chem.MoleculeParser;
import io.molfuse.train.Seeds;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.bytedeco.javacpp.PointerScope;

/**
 * Ways through a model's latent space. Latents are arrays [n, slots * width] row by row, as {@link Generator#decode} takes them; one
 * molecule's slots are one vector here.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class LatentSpace {
  private static final int BATCH = 64;

  /** Below this sine the arc between two directions is a line to rounding, or one of many. */
  private static final double SMALLEST_SINE = 1e-4;

  /** How to go from one latent to another. */
  public enum Path {
    /** The straight line. Its middle is nearer to the origin than latents of the prior are. */
    LINEAR,
    /** Along the arc between the directions (Shoemake 1985; for latent spaces, White 2016). */
    SPHERICAL
  }

  private final MolecularVae model;

  /** @param model stays the caller's */
  public LatentSpace(MolecularVae model) {
    this.model = model;
  }

  /**
   * The latent means of molecules.
   *
   * @param smiles molecules, any number
   * @return [n, slots * width] row by row
   * @throws io.molfuse.chem.MoleculeException if one is no molecule
   */
  public float[] encode(List<String> smiles) {
    MoleculeParser parser = new MoleculeParser();
    List<MoleculeGraph> graphs = new ArrayList<>();
    for (String text : smiles) {
      graphs.add(parser.parse(text).graph());
    }
    int size = model.config().latent().size();
    float[] latents = new float[graphs.size() * size];
    for (int first = 0; first < graphs.size(); first += BATCH) {
      List<MoleculeGraph> batch = graphs.subList(first, Math.min(graphs.size(), first + BATCH));
      try (PointerScope scope = new PointerScope()) {
        float[] means = Tensors.toFloats(model.encode(VaeBatch.of(GraphBatch.of(batch), model.device())));
        System.arraycopy(means, 0, latents, first * size, means.length);
      }
    }
    return latents;
  }

  /**
   * Points between two latents, both ends included.
   *
   * @param from first latent
   * @param to last latent, as long
   * @param steps how many points, at least 2
   * @param path which way
   * @return [steps, length] row by row
   */
  public static float[] interpolate(float[] from, float[] to, int steps, Path path) {
    if (steps < 2) {
      throw new IllegalArgumentException("steps must be at least 2, but is " + steps);
    }
    if (from.length != to.length) {
      throw new IllegalArgumentException("to must have " + from.length + " numbers, as from has, but has " + to.length);
    }
    double dot = 0;
    double lengths = 0;
    double other = 0;
    for (int i = 0; i < from.length; i++) {
      dot += (double) from[i] * to[i];
      lengths += (double) from[i] * from[i];
      other += (double) to[i] * to[i];
    }
    double norm = Math.sqrt(lengths * other);
    double angle = norm == 0 ? 0 : Math.acos(Math.max(-1, Math.min(1, dot / norm)));
    double sine = Math.sin(angle);
    boolean arc = path == Path.SPHERICAL && sine > SMALLEST_SINE;
    float[] points = new float[steps * from.length];
    for (int step = 0; step < steps; step++) {
      double t = (double) step / (steps - 1);
      double a = arc ? Math.sin((1 - t) * angle) / sine : 1 - t;
      double b = arc ? Math.sin(t * angle) / sine : t;
      for (int i = 0; i < from.length; i++) {
        points[step * from.length + i] = (float) (a * from[i] + b * to[i]);
      }
    }
    return points;
  }

  /**
   * Points around a latent, in directions drawn evenly.
   *
   * @param centre a latent of d numbers
   * @param radius of every point, above 0, in standard deviations of the prior along one dimension: the Euclidean distance is
   *     radius * sqrt(d), which is how far latents of the prior are from the origin at radius 1
   * @param count how many
   * @param seed decides the directions; point n depends on it and n alone
   * @return [count, d] row by row
   */
  public static float[] around(float[] centre, double radius, int count, long seed) {
    if (!(radius > 0) || Double.isInfinite(radius)) {
      throw new IllegalArgumentException("radius must be above 0, but is " + radius);
    }
    if (count < 0) {
      throw new IllegalArgumentException("count must be at least 0, but is " + count);
    }
    int size = centre.length;
    float[] points = new float[Math.multiplyExact(count, size)];
    double[] direction = new double[size];
    for (int point = 0; point < count; point++) {
      Random random = new Random(Seeds.mix(seed, point));
      double squares = 0;
      for (int i = 0; i < size; i++) {
        direction[i] = random.nextGaussian();
        squares += direction[i] * direction[i];
      }
      double factor = radius * Math.sqrt(size / squares);
      for (int i = 0; i < size; i++) {
        points[point * size + i] = (float) (centre[i] + factor * direction[i]);
      }
    }
    return points;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.Chemistry;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeException;
import io.molfuse.chem.Selfies;
import io.molfuse.chem.SelfiesException;
import io.molfuse.chem.Vocabulary;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntConsumer;
import org.bytedeco.javacpp.PointerScope;

/**
 * How well a model gives molecules back: each is encoded to its latent's mean and decoded without knowing the right tokens.
 *
 * @param molecules one a molecule, in the order asked for
 * @param exactMatch share whose canonical SMILES is that of the original; NaN without molecules
 * @param validity share that is a molecule; NaN without molecules
 * @param tokenAccuracy share of the originals' tokens, {@code <eos>} included, that stand at their position; NaN without molecules
 * @param atMaximumLength originals that fill the maximum length, most of them since they were cut: those cannot be given back whole
 * @param unknown originals with a symbol that the vocabulary lacks
 */
@SuppressWarnings("try") // A scope does its work by being open.
public record Reconstruction(
    List<Molecule> molecules, double exactMatch, double validity, double tokenAccuracy, int atMaximumLength, int unknown) {

  private static final int BATCH = 64;

  /**
   * One molecule.
   *
   * @param smiles the original, canonical
   * @param decoded what was decoded, canonical if it is a molecule, else as it came; may be empty
   * @param valid whether it is a molecule
   * @param exact whether it is the original
   * @param tokens tokens of the original, {@code <eos>} included
   * @param rightTokens those of them that were decoded at their position
   * @param logProbability of the decoded sequence, see {@link Decoded}
   */
  public record Molecule(
      String smiles, String decoded, boolean valid, boolean exact, int tokens, int rightTokens, double logProbability) {}

  /**
   * Measures a model.
   *
   * @param model the model
   * @param dataset molecules whose tokens are of the model's vocabulary
   * @param entries which of them
   * @param options how tokens are chosen, such as {@link GenerationOptions#greedy}
   * @param progress takes the number of molecules done, now and then
   * @return the measurement
   */
  public static Reconstruction measure(
      MolecularVae model, MoleculeDataset dataset, int[] entries, GenerationOptions options, IntConsumer progress) {
    Generator generator = new Generator(model, dataset.vocabulary());
    List<Molecule> molecules = new ArrayList<>();
    int cut = 0;
    int unknown = 0;
    for (int first = 0; first < entries.length; first += BATCH) {
      int[] batch = Arrays.copyOfRange(entries, first, Math.min(entries.length, first + BATCH));
      float[] latents;
      try (PointerScope scope = new PointerScope()) {
        latents = Tensors.toFloats(model.encode(VaeBatch.of(dataset.collate(batch), model.device())));
      }
      List<Decoded> decoded = generator.decodeScored(latents, options);
      for (int i = 0; i < batch.length; i++) {
        int[] tokens = dataset.tokens(batch[i]);
        molecules.add(compare(dataset.smiles(batch[i]), tokens, decoded.get(i)));
        cut += tokens.length == dataset.maxLength() ? 1 : 0;
        unknown += Arrays.stream(tokens).anyMatch(token -> token == Vocabulary.UNK) ? 1 : 0;
      }
      progress.accept(molecules.size());
    }
    long all = molecules.stream().mapToLong(Molecule::tokens).sum();
    return new Reconstruction(
        List.copyOf(molecules),
        share(molecules.stream().filter(Molecule::exact).count(), molecules.size()),
        share(molecules.stream().filter(Molecule::valid).count(), molecules.size()),
        share(molecules.stream().mapToLong(Molecule::rightTokens).sum(), all),
        cut,
        unknown);
  }

  /** @param wanted with {@code <sos>} and {@code <eos>} */
  static Molecule compare(String smiles, int[] wanted, Decoded decoded) {
    int right = 0;
    for (int i = 1; i < wanted.length; i++) {
      int at = i - 1;
      int token = at < decoded.tokens().length ? decoded.tokens()[at] : at == decoded.tokens().length ? Vocabulary.EOS : Vocabulary.PAD;
      right += token == wanted[i] ? 1 : 0;
    }
    String text = "";
    boolean valid = false;
    try {
      text = Selfies.standard().decode(decoded.selfies());
      text = Chemistry.canonical(text);
      valid = true;
    } catch (SelfiesException | MoleculeException e) {
      // Counted as not valid.
    }
    return new Molecule(smiles, text, valid, valid && text.equals(smiles), wanted.length - 1, right, decoded.logProbability());
  }

  private static double share(long part, long whole) {
    return whole == 0 ? Double.NaN : (double) part / whole;
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.Optional;
import java.util.regex.Pattern;
import org.openscience.cdk.depict.DepictionGenerator;
import org.openscience.cdk.exception.CDKException;
import org.openscience.cdk.interfaces.IAtomContainer;
import org.openscience.cdk.silent.SilentChemObjectBuilder;
import org.openscience.cdk.smiles.SmilesParser;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Structural formulas as SVG, drawn by CDK. Lines and letters have the colour of the text around them, so that a picture can be read
 * on light and on dark pages. Letters are outlines of a font, of which Java needs one on the machine. Thread-safe.
 */
public final class MoleculePicture {
  private static final Logger LOG = LoggerFactory.getLogger(MoleculePicture.class);

  /** Of the picture, in millimetres as CDK counts; only the ratio matters, since the size is taken out. */
  private static final double WIDTH = 60;

  private static final double HEIGHT = 45;

  /** The one colour that CDK draws in unless told otherwise. */
  private static final String INK = "'#444444'";

  /** What has no place within a page: prologue, size, background, and identifiers that another picture would have, too. */
  private static final Pattern SUPERFLUOUS =
      Pattern.compile(
          "\\A.*?(?=<svg)| xmlns:xlink='[^']*'|(?<=[' ])width='[^']*mm' height='[^']*mm' ?"
              + "|\\s*<desc>.*?</desc>|\\s*<rect[^>]*/>| (id|class)='[^']*'",
          Pattern.DOTALL);

  private static volatile boolean broken;

  private MoleculePicture() {}

  /**
   * Draws a molecule.
   *
   * @param smiles a molecule
   * @return one svg element with a viewBox and no size of its own, to be put into HTML; empty if the text is no molecule, it cannot be
   *     laid out, or Java finds no font on this machine
   */
  public static Optional<String> svg(String smiles) {
    if (broken || smiles.isBlank()) {
      return Optional.empty();
    }
    try {
      IAtomContainer molecule = new SmilesParser(SilentChemObjectBuilder.getInstance()).parseSmiles(smiles);
      String svg = new DepictionGenerator().withSize(WIDTH, HEIGHT).withFillToFit().depict(molecule).toSvgStr();
      return Optional.of(SUPERFLUOUS.matcher(svg).replaceAll("").replace(INK, "'currentColor'").strip());
    } catch (CDKException | RuntimeException e) {
      LOG.debug("cannot draw {}: {}", smiles, e.toString());
      return Optional.empty();
    } catch (LinkageError | InternalError e) {
      // Java lacks its drawing library or a font, so no later picture can be drawn either.
      broken = true;
      LOG.warn("molecules cannot be drawn on this machine: {}", e.toString());
      return Optional.empty();
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.awt.Color;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.openscience.cdk.CDKConstants;
import org.openscience.cdk.depict.Depiction;
import org.openscience.cdk.depict.DepictionGenerator;
import org.openscience.cdk.exception.CDKException;
import org.openscience.cdk.interfaces.IAtomContainer;
import org.openscience.cdk.interfaces.IChemObjectBuilder;
import org.openscience.cdk.silent.SilentChemObjectBuilder;
import org.openscience.cdk.smiles.SmilesParser;

/** Structural formulas of several molecules in rows and columns, drawn by CDK. Needs no display, but a font. */
public final class MoleculeGrid {
  /** More are too many for one picture. */
  public static final int MOST = 1000;

  /** Pixels of a cell; SVG has the same numbers in millimetres / {@link #ZOOM}. */
  private static final int WIDTH = 220;

  private static final int HEIGHT = 190;
  private static final double ZOOM = 1.3;

  private MoleculeGrid() {}

  /**
   * A name that {@link #write} can write to.
   *
   * @param file any name
   * @return whether it ends in .png or .svg
   */
  public static boolean canWrite(Path file) {
    String name = file.getFileName().toString().toLowerCase(Locale.ROOT);
    return name.endsWith(".png") || name.endsWith(".svg");
  }

  /**
   * Draws molecules into a file.
   *
   * @param smiles molecules, 1 to {@value #MOST}; those that cannot be drawn have an empty cell
   * @param captions one a molecule, or an empty list
   * @param columns cells of a row
   * @param file its name ends in .png or .svg
   * @throws ChemDataException naming the file, if it cannot be written or this machine has no fonts
   */
  public static void write(List<String> smiles, List<String> captions, int columns, Path file) {
    if (smiles.isEmpty() || smiles.size() > MOST) {
      throw new IllegalArgumentException("smiles must be 1 to " + MOST + ", but are " + smiles.size());
    }
    if (!captions.isEmpty() && captions.size() != smiles.size()) {
      throw new IllegalArgumentException("captions must be " + smiles.size() + " or none, but are " + captions.size());
    }
    if (columns < 1) {
      throw new IllegalArgumentException("columns must be at least 1, but is " + columns);
    }
    if (!canWrite(file)) {
      throw new IllegalArgumentException("file must end in .png or .svg, but is " + file);
    }
    List<IAtomContainer> molecules = new ArrayList<>();
    for (int i = 0; i < smiles.size(); i++) {
      IAtomContainer molecule = read(smiles.get(i));
      molecule.setProperty(CDKConstants.TITLE, captions.isEmpty() ? "" : captions.get(i));
      molecules.add(molecule);
    }
    int across = Math.min(columns, molecules.size());
    int down = (molecules.size() - 1) / across + 1;
    try {
      DepictionGenerator generator =
          new DepictionGenerator().withAtomColors().withBackgroundColor(Color.WHITE).withSize(WIDTH, HEIGHT).withFillToFit().withZoom(ZOOM);
      if (!captions.isEmpty()) {
        generator = generator.withMolTitle().withTitleColor(Color.DARK_GRAY);
      }
      Depiction picture = generator.depict(molecules, down, across);
      if (file.getFileName().toString().toLowerCase(Locale.ROOT).endsWith(".svg")) {
        Files.write(file, picture.toSvgStr(Depiction.UNITS_PX).getBytes(StandardCharsets.UTF_8));
      } else {
        picture.writeTo("png", file.toFile());
      }
    } catch (IOException e) {
      throw new ChemDataException(file, "cannot be written: " + e, e);
    } catch (CDKException e) {
      throw new ChemDataException(file, "cannot be drawn: " + e.getMessage(), e);
    } catch (LinkageError | InternalError e) {
      throw new ChemDataException(file, "cannot be drawn: this machine has no fonts (" + e.getMessage() + ")", e);
    }
  }

  private static IAtomContainer read(String smiles) {
    IChemObjectBuilder builder = SilentChemObjectBuilder.getInstance();
    try {
      return new SmilesParser(builder).parseSmiles(smiles);
    } catch (CDKException | RuntimeException e) {
      return builder.newAtomContainer();
    }
  }
}

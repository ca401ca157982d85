// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.awt.Color;
import java.awt.Graphics2D;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.regex.Pattern;
import javax.imageio.ImageIO;
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

  /** Pixels of a cell. */
  private static final int WIDTH = 220;

  private static final int HEIGHT = 190;

  private static final Pattern PROLOGUE = Pattern.compile("\\A.*?(?=<svg)", Pattern.DOTALL);
  private static final Pattern IDENTIFIER = Pattern.compile(" id='[^']*'");

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
    int across = Math.min(columns, smiles.size());
    int down = (smiles.size() - 1) / across + 1;
    // Not CDK's own grid: its columns are as wide as what is in them.
    DepictionGenerator generator = new DepictionGenerator().withAtomColors().withBackgroundColor(Color.WHITE).withSize(WIDTH, HEIGHT);
    if (!captions.isEmpty()) {
      generator = generator.withMolTitle().withTitleColor(Color.DARK_GRAY);
    }
    List<Depiction> cells = new ArrayList<>();
    try {
      for (int i = 0; i < smiles.size(); i++) {
        IAtomContainer molecule = read(smiles.get(i));
        molecule.setProperty(CDKConstants.TITLE, captions.isEmpty() ? "" : captions.get(i));
        cells.add(generator.depict(molecule));
      }
      if (isSvg(file)) {
        Files.writeString(file, svg(cells, across, down));
      } else {
        ImageIO.write(image(cells, across, down), "png", file.toFile());
      }
    } catch (IOException e) {
      throw new ChemDataException(file, "cannot be written: " + e, e);
    } catch (CDKException e) {
      throw new ChemDataException(file, "cannot be drawn: " + e.getMessage(), e);
    } catch (LinkageError | InternalError e) {
      throw new ChemDataException(file, "cannot be drawn: this machine has no fonts (" + e.getMessage() + ")", e);
    }
  }

  private static boolean isSvg(Path file) {
    return file.getFileName().toString().toLowerCase(Locale.ROOT).endsWith(".svg");
  }

  private static String svg(List<Depiction> cells, int across, int down) {
    StringBuilder svg = new StringBuilder();
    svg.append("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + across * WIDTH + "\" height=\"" + down * HEIGHT + "\">\n");
    svg.append("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n");
    for (int i = 0; i < cells.size(); i++) {
      String cell = PROLOGUE.matcher(cells.get(i).toSvgStr(Depiction.UNITS_PX)).replaceFirst("");
      // Every cell begins to count its atoms anew.
      cell = IDENTIFIER.matcher(cell).replaceAll("");
      svg.append("<g transform=\"translate(" + i % across * WIDTH + " " + i / across * HEIGHT + ")\">\n").append(cell).append("</g>\n");
    }
    return svg.append("</svg>\n").toString();
  }

  private static BufferedImage image(List<Depiction> cells, int across, int down) {
    BufferedImage picture = new BufferedImage(across * WIDTH, down * HEIGHT, BufferedImage.TYPE_INT_RGB);
    Graphics2D graphics = picture.createGraphics();
    graphics.setColor(Color.WHITE);
    graphics.fillRect(0, 0, picture.getWidth(), picture.getHeight());
    for (int i = 0; i < cells.size(); i++) {
      graphics.drawImage(cells.get(i).toImg(), i % across * WIDTH, i / across * HEIGHT, null);
    }
    graphics.dispose();
    return picture;
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

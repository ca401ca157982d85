// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.awt.Color;
import java.awt.Font;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.regex.Pattern;
import javax.imageio.ImageIO;
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

  /** Of these, at the bottom, for the caption. */
  private static final int CAPTION = 24;

  private static final int BASELINE = 9;
  private static final int FONT_SIZE = 12;

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
    DepictionGenerator generator =
        new DepictionGenerator().withAtomColors().withBackgroundColor(Color.WHITE).withSize(WIDTH, HEIGHT - CAPTION);
    List<Depiction> cells = new ArrayList<>();
    try {
      for (String text : smiles) {
        cells.add(generator.depict(read(text)));
      }
      if (isSvg(file)) {
        Files.writeString(file, svg(cells, captions, across, down));
      } else {
        // Of a file that cannot be opened, ImageIO itself prints a stack trace.
        ByteArrayOutputStream png = new ByteArrayOutputStream();
        ImageIO.write(image(cells, captions, across, down), "png", png);
        Files.write(file, png.toByteArray());
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

  private static String svg(List<Depiction> cells, List<String> captions, int across, int down) {
    StringBuilder svg = new StringBuilder();
    svg.append("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + across * WIDTH + "\" height=\"" + down * HEIGHT + "\">\n");
    svg.append("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n");
    for (int i = 0; i < cells.size(); i++) {
      String cell = PROLOGUE.matcher(cells.get(i).toSvgStr(Depiction.UNITS_PX)).replaceFirst("");
      // Every cell begins to count its atoms anew.
      cell = IDENTIFIER.matcher(cell).replaceAll("");
      svg.append("<g transform=\"translate(" + i % across * WIDTH + " " + i / across * HEIGHT + ")\">\n").append(cell);
      if (!captions.isEmpty()) {
        String caption = captions.get(i).replace("&", "&amp;").replace("<", "&lt;");
        svg.append("<text x=\"" + WIDTH / 2 + "\" y=\"" + (HEIGHT - BASELINE) + "\" text-anchor=\"middle\" font-family=\"sans-serif\"")
            .append(" font-size=\"" + FONT_SIZE + "\" fill=\"#404040\">" + caption + "</text>\n");
      }
      svg.append("</g>\n");
    }
    return svg.append("</svg>\n").toString();
  }

  private static BufferedImage image(List<Depiction> cells, List<String> captions, int across, int down) {
    BufferedImage picture = new BufferedImage(across * WIDTH, down * HEIGHT, BufferedImage.TYPE_INT_RGB);
    Graphics2D graphics = picture.createGraphics();
    graphics.setRenderingHint(RenderingHints.KEY_TEXT_ANTIALIASING, RenderingHints.VALUE_TEXT_ANTIALIAS_ON);
    graphics.setFont(new Font(Font.SANS_SERIF, Font.PLAIN, FONT_SIZE));
    graphics.setColor(Color.WHITE);
    graphics.fillRect(0, 0, picture.getWidth(), picture.getHeight());
    graphics.setColor(Color.DARK_GRAY);
    for (int i = 0; i < cells.size(); i++) {
      int left = i % across * WIDTH;
      int top = i / across * HEIGHT;
      graphics.drawImage(cells.get(i).toImg(), left, top, null);
      if (!captions.isEmpty()) {
        int width = graphics.getFontMetrics().stringWidth(captions.get(i));
        graphics.drawString(captions.get(i), left + (WIDTH - width) / 2, top + HEIGHT - BASELINE);
      }
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

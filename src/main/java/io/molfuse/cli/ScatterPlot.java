// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import java.util.Locale;

/** Points as SVG, coloured by a number. */
final class ScatterPlot {
  private static final int SIZE = 480;
  private static final int LEFT = 70;
  private static final int TOP = 44;
  private static final int BOTTOM = 58;
  private static final int LEGEND = 110;
  private static final int MOST_TICKS = 6;
  private static final int SHADES = 24;

  /** From the least to the largest number: the ends and the middle of viridis (van der Walt and Smith 2015). */
  private static final int[][] COLOURS = {{68, 1, 84}, {33, 145, 140}, {253, 231, 37}};

  private ScatterPlot() {}

  /**
   * @param points [n,2] row by row
   * @param values [n]
   */
  static String svg(String title, String acrossName, String upName, String valueName, double[] points, double[] values) {
    double[] across = range(points, 0, 2);
    double[] up = range(points, 1, 2);
    double[] colour = range(values, 0, 1);
    StringBuilder svg = new StringBuilder(64 * values.length);
    int width = LEFT + SIZE + LEGEND;
    int height = TOP + SIZE + BOTTOM;
    add(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\""
        + " font-size=\"12\" fill=\"#333\">%n", width, height, width, height);
    add(svg, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>%n", width, height);
    add(svg, "<text x=\"%d\" y=\"26\" font-size=\"15\">%s</text>%n", LEFT, escaped(title));
    for (double tick = first(across); tick <= across[1]; tick += step(across)) {
      double x = LEFT + SIZE * share(tick, across);
      add(svg, "<path d=\"M%.1f %d v%d\" stroke=\"#e4e4e4\"/>", x, TOP, SIZE);
      add(svg, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>%n", x, TOP + SIZE + 18, number(tick, step(across)));
    }
    for (double tick = first(up); tick <= up[1]; tick += step(up)) {
      double y = TOP + SIZE * (1 - share(tick, up));
      add(svg, "<path d=\"M%d %.1f h%d\" stroke=\"#e4e4e4\"/>", LEFT, y, SIZE);
      add(svg, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>%n", LEFT - 8, y + 4, number(tick, step(up)));
    }
    add(svg, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>%n", LEFT + SIZE / 2, TOP + SIZE + 42, escaped(acrossName));
    add(svg, "<text transform=\"translate(18 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>%n", TOP + SIZE / 2, escaped(upName));
    add(svg, "<g fill-opacity=\"0.7\">%n");
    for (int i = 0; i < values.length; i++) {
      add(svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>%n",
          LEFT + SIZE * share(points[2 * i], across),
          TOP + SIZE * (1 - share(points[2 * i + 1], up)),
          colour(share(values[i], colour)));
    }
    add(svg, "</g>%n");
    legend(svg, valueName, colour);
    return svg.append("</svg>\n").toString();
  }

  private static void legend(StringBuilder svg, String name, double[] range) {
    int x = LEFT + SIZE + 24;
    int each = 8;
    add(svg, "<text x=\"%d\" y=\"%d\">%s</text>%n", x, TOP + 10, escaped(name));
    for (int shade = 0; shade < SHADES; shade++) {
      add(svg, "<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"%d\" fill=\"%s\"/>%n",
          x, TOP + 20 + (SHADES - 1 - shade) * each, each, colour(shade / (SHADES - 1.0)));
    }
    add(svg, "<text x=\"%d\" y=\"%d\">%s</text>%n", x + 20, TOP + 30, number(range[1], range[1] - range[0]));
    add(svg, "<text x=\"%d\" y=\"%d\">%s</text>%n", x + 20, TOP + 20 + SHADES * each, number(range[0], range[1] - range[0]));
  }

  private static double[] range(double[] values, int first, int stride) {
    double least = Double.POSITIVE_INFINITY;
    double most = Double.NEGATIVE_INFINITY;
    for (int i = first; i < values.length; i += stride) {
      least = Math.min(least, values[i]);
      most = Math.max(most, values[i]);
    }
    return least < most ? new double[] {least, most} : new double[] {least - 0.5, least + 0.5};
  }

  private static double share(double value, double[] range) {
    return (value - range[0]) / (range[1] - range[0]);
  }

  /** 1, 2 or 5 times a power of ten. */
  private static double step(double[] range) {
    double least = (range[1] - range[0]) / MOST_TICKS;
    double power = Math.pow(10, Math.floor(Math.log10(least)));
    double factor = least / power;
    return power * (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10);
  }

  private static double first(double[] range) {
    return Math.ceil(range[0] / step(range)) * step(range);
  }

  private static String number(double value, double step) {
    int digits = Math.max(0, (int) -Math.floor(Math.log10(step)));
    String text = String.format(Locale.ROOT, "%." + digits + "f", value);
    return text.matches("-0(\\.0*)?") ? text.substring(1) : text;
  }

  private static String colour(double share) {
    double at = share * (COLOURS.length - 1);
    int from = Math.min((int) at, COLOURS.length - 2);
    int[] rgb = new int[3];
    for (int i = 0; i < 3; i++) {
      rgb[i] = (int) Math.round(COLOURS[from][i] + (at - from) * (COLOURS[from + 1][i] - COLOURS[from][i]));
    }
    return String.format(Locale.ROOT, "#%02x%02x%02x", rgb[0], rgb[1], rgb[2]);
  }

  private static String escaped(String text) {
    return text.replace("&", "&amp;").replace("<", "&lt;");
  }

  private static void add(StringBuilder svg, String format, Object... values) {
    svg.append(String.format(Locale.ROOT, format, values));
  }
}

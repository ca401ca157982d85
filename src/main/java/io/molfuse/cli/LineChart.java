// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** A chart of curves over steps as SVG, with the same in words for those who do not see it. Colours come from the page's style. */
final class LineChart {
  private static final int WIDTH = 640;
  private static final int HEIGHT = 260;
  private static final int LEFT = 64;
  private static final int RIGHT = 28;
  private static final int TOP = 12;
  private static final int BOTTOM = 40;
  private static final int PLOT_WIDTH = WIDTH - LEFT - RIGHT;
  private static final int PLOT_HEIGHT = HEIGHT - TOP - BOTTOM;
  private static final int TICKS = 5;

  /** Points up to which each is marked. */
  private static final int FEW = 60;

  /**
   * A curve.
   *
   * @param name in the legend
   * @param points at least one
   */
  record Line(String name, List<RunHistory.Point> points) {}

  private final String title;
  private final String unit;
  private final List<Line> lines;
  private final Scale x;
  private final Scale y;

  /**
   * A chart.
   *
   * @param title of the chart
   * @param unit of the values; may be empty
   * @param lines at least one
   */
  LineChart(String title, String unit, List<Line> lines) {
    this.title = title;
    this.unit = unit;
    this.lines = lines;
    List<RunHistory.Point> all = lines.stream().flatMap(line -> line.points().stream()).toList();
    x = Scale.upTo(Math.max(1, all.stream().mapToDouble(RunHistory.Point::step).max().orElse(1)));
    // By the means: one wild step shall not flatten all others.
    y = Scale.over(
        all.stream().mapToDouble(RunHistory.Point::mean).min().orElse(0), all.stream().mapToDouble(RunHistory.Point::mean).max().orElse(1));
  }

  /**
   * Round numbers around a range.
   *
   * @param low end
   * @param high end
   * @param step between ticks
   */
  private record Scale(double low, double high, double step) {
    static Scale over(double least, double most) {
      double range = most > least ? most - least : Math.max(Math.abs(most), 1e-9);
      double rough = range / TICKS;
      double power = Math.pow(10, Math.floor(Math.log10(rough)));
      double step = power * (rough / power > 5 ? 10 : rough / power > 2 ? 5 : rough / power > 1 ? 2 : 1);
      double low = Math.floor(least / step) * step;
      double high = Math.ceil(most / step) * step;
      return new Scale(low, high > low ? high : low + step, step);
    }

    /** From 0 to an end that need not be round. */
    static Scale upTo(double most) {
      return new Scale(0, most, over(0, most).step());
    }

    List<Double> ticks() {
      List<Double> ticks = new ArrayList<>();
      for (long i = 0; low + i * step <= high + 1e-6 * step; i++) {
        ticks.add(low + i * step);
      }
      return ticks;
    }

    double share(double value) {
      return (value - low) / (high - low);
    }
  }

  /** The chart as one svg element. */
  String svg() {
    StringBuilder svg = new StringBuilder();
    // What the attributes say holds where a page's style does not, as in a picture cut out of it.
    svg.append("<svg class=\"chart\" viewBox=\"0 0 ").append(WIDTH).append(' ').append(HEIGHT);
    svg.append("\" role=\"img\" font-size=\"12\" fill=\"currentColor\" stroke-width=\"1\">");
    svg.append("<title>").append(Html.text(title)).append("</title><desc>").append(Html.text(words())).append("</desc>\n");
    for (double tick : y.ticks()) {
      double at = TOP + PLOT_HEIGHT * (1 - y.share(tick));
      svg.append(fixed("<path class=\"grid\" stroke=\"currentColor\" d=\"M%d %.1fh%d\"/>", LEFT, at, PLOT_WIDTH));
      svg.append(fixed("<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", LEFT - 6, at + 4, Html.number(clean(tick, y.step()))));
    }
    for (double tick : x.ticks()) {
      double at = LEFT + PLOT_WIDTH * x.share(tick);
      String number = Html.number(clean(tick, x.step()));
      svg.append(fixed("<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", at, HEIGHT - BOTTOM + 16, number));
    }
    svg.append(fixed("<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">step</text>\n", LEFT + PLOT_WIDTH / 2, HEIGHT - 6));
    // An inner element cuts off what leaves the plot.
    svg.append(fixed("<svg x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\">\n", LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT));
    for (int i = 0; i < lines.size(); i++) {
      line(svg, lines.get(i).points(), "s" + i);
    }
    return svg.append("</svg></svg>\n").toString();
  }

  private void line(StringBuilder svg, List<RunHistory.Point> points, String style) {
    if (points.stream().anyMatch(point -> point.least() < point.most())) {
      svg.append("<path class=\"band ").append(style).append("\" opacity=\".25\" d=\"M");
      points.forEach(point -> svg.append(at(point.step(), point.most())));
      for (int i = points.size() - 1; i >= 0; i--) {
        svg.append(at(points.get(i).step(), points.get(i).least()));
      }
      svg.append("Z\"/>\n");
    }
    svg.append("<path class=\"line ").append(style).append("\" fill=\"none\" stroke=\"currentColor\" d=\"M");
    points.forEach(point -> svg.append(at(point.step(), point.mean())));
    svg.append("\"/>\n");
    if (points.size() <= FEW) {
      for (RunHistory.Point point : points) {
        String[] place = at(point.step(), point.mean()).strip().split(" ");
        svg.append(fixed("<circle class=\"%s\" cx=\"%s\" cy=\"%s\" r=\"2\"/>", style, place[0], place[1]));
      }
      svg.append('\n');
    }
  }

  private String at(double step, double value) {
    return fixed("%.1f %.1f ", PLOT_WIDTH * x.share(step), Math.max(-1e4, Math.min(1e4, PLOT_HEIGHT * (1 - y.share(value)))));
  }

  /** Which curve has which colour, as HTML. */
  String legend() {
    StringBuilder html = new StringBuilder("<p class=\"legend\">");
    for (int i = 0; i < lines.size(); i++) {
      html.append("<span class=\"key s").append(i).append("\"></span>").append(Html.text(lines.get(i).name())).append(' ');
    }
    return html.append(unit.isEmpty() ? "" : "(" + Html.text(unit) + ")").append("</p>\n").toString();
  }

  private String words() {
    List<String> parts = new ArrayList<>();
    for (Line line : lines) {
      RunHistory.Point first = line.points().get(0);
      RunHistory.Point last = line.points().get(line.points().size() - 1);
      double least = line.points().stream().mapToDouble(RunHistory.Point::least).min().orElse(Double.NaN);
      double most = line.points().stream().mapToDouble(RunHistory.Point::most).max().orElse(Double.NaN);
      parts.add(
          String.format(
              Locale.ROOT,
              "%s: from %s at step %.0f to %s at step %.0f, between %s and %s",
              line.name(), Html.number(first.mean()), first.step(), Html.number(last.mean()), last.step(), Html.number(least),
              Html.number(most)));
    }
    return String.join("; ", parts) + (unit.isEmpty() ? "" : "; in " + unit);
  }

  /** Takes the rounding error out of a tick such as 0.30000000000000004. */
  private static double clean(double tick, double step) {
    return Math.rint(tick / step) * step;
  }

  private static String fixed(String format, Object... values) {
    return String.format(Locale.ROOT, format, values);
  }
}

// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import java.util.List;
import java.util.Locale;

/** Parts of the program's pages. A page is one file that needs nothing else: no script, no font, no picture from elsewhere. */
final class Html {
  private static final int DIGITS = 4;

  private static final String STYLE =
      """
      :root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #5b6470; --rule: #d7dce2; --s0: #0065a8; --s1: #b84a00;
        --s2: #00785a; }
      @media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --paper: #15181c; --soft: #a0a9b4; --rule: #363c44; --s0: #6cb8f0;
        --s1: #ff9a57; --s2: #4fcfa8; } }
      body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1360px;
        padding: 1rem 1.5rem; }
      h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: .5rem 0 0; }
      .grid2 { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
      .tiles { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }
      figure { margin: 0; min-width: 0; } figcaption { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
      .tiles svg { border: 1px solid var(--rule); box-sizing: border-box; display: block; padding: .4rem; width: 100%; }
      .chart { display: block; width: 100%; } .chart text { fill: var(--soft); font-size: 12px; }
      .chart .grid { stroke: var(--rule); } .chart .line { fill: none; stroke-linejoin: round; stroke-width: 1.8; }
      .chart .band { opacity: .25; stroke: none; }
      .line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); stroke-dasharray: 6 3; }
      .line.s2 { stroke: var(--s2); stroke-dasharray: 2 3; }
      circle.s0, .band.s0 { fill: var(--s0); } circle.s1, .band.s1 { fill: var(--s1); } circle.s2, .band.s2 { fill: var(--s2); }
      .legend { color: var(--soft); font-size: .85rem; margin: 0; }
      .key { border-top: 3px solid; display: inline-block; margin: 0 .4rem .25rem .6rem; width: 1.6rem; }
      .key.s0 { border-color: var(--s0); } .key.s1 { border-color: var(--s1); border-top-style: dashed; }
      .key.s2 { border-color: var(--s2); border-top-style: dotted; }
      .scroll { overflow-x: auto; }
      table { border-collapse: collapse; font-variant-numeric: tabular-nums; } caption { color: var(--soft); text-align: left; }
      th, td { border-bottom: 1px solid var(--rule); padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
      td { overflow-wrap: anywhere; } td.n, th.n { text-align: right; white-space: nowrap; } th { font-weight: 600; }
      summary { color: var(--soft); cursor: pointer; font-size: .85rem; }
      pre { border: 1px solid var(--rule); overflow-x: auto; padding: .5rem; } .bad { color: var(--s1); font-weight: 600; }
      """;

  private Html() {}

  /** A whole page. */
  static String page(String title, String body) {
    return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        + "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>"
        + text(title)
        + "</title>\n<style>\n"
        + STYLE
        + "</style>\n</head>\n<body>\n<main>\n<h1>"
        + text(title)
        + "</h1>\n"
        + body
        + "</main>\n</body>\n</html>\n";
  }

  /** Text as it stands, in an element or in a quoted attribute. */
  static String text(String text) {
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\"", "&quot;").replace("'", "&#39;");
  }

  /** A table whose first column names the rows. Cells that begin like numbers stand to the right. */
  static String table(String caption, List<String> head, List<List<String>> rows) {
    StringBuilder html = new StringBuilder("<div class=\"scroll\"><table>\n<caption>");
    html.append(text(caption)).append("</caption>\n<thead><tr>");
    for (int i = 0; i < head.size(); i++) {
      boolean number = !rows.isEmpty() && isNumber(rows.get(0).get(i));
      html.append("<th scope=\"col\"").append(number ? " class=\"n\">" : ">").append(text(head.get(i))).append("</th>");
    }
    html.append("</tr></thead>\n<tbody>\n");
    for (List<String> row : rows) {
      html.append("<tr>");
      for (int i = 0; i < row.size(); i++) {
        String number = isNumber(row.get(i)) ? " class=\"n\"" : "";
        html.append(i == 0 ? "<th scope=\"row\"" : "<td").append(number).append('>').append(text(row.get(i)));
        html.append(i == 0 ? "</th>" : "</td>");
      }
      html.append("</tr>\n");
    }
    return html.append("</tbody>\n</table></div>\n").toString();
  }

  private static boolean isNumber(String text) {
    return text.matches("[-+]?\\d[\\d,.]*(e[-+]?\\d+)?");
  }

  /** A few significant digits, without zeros at the end. */
  static String number(double value) {
    double size = Math.abs(value);
    if (value == 0 || !Double.isFinite(value)) {
      return value == 0 ? "0" : "none";
    }
    if (value == Math.rint(value) && size < 1e7) {
      return Long.toString((long) value);
    }
    String text =
        size >= 1e7 || size < 1e-3
            ? String.format(Locale.ROOT, "%.3e", value).replaceFirst("\\.?0*e([-+])0*", "e$1")
            : String.format(Locale.ROOT, "%." + Math.max(0, DIGITS - 1 - (int) Math.floor(Math.log10(size))) + "f", value);
    return text.contains(".") && !text.contains("e") ? text.replaceFirst("\\.?0+$", "") : text.replaceFirst("e\\+", "e");
  }
}

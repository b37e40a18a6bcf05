// Titles first, and pages that people read before the members of the API.
var Scorer = {
  score: ([page, title, , , score]) => {
    const query = new URLSearchParams(location.search).get("q") ?? "";
    const words = query.toLowerCase().split(/\s+/);
    if (words.every((word) => title.toLowerCase().includes(word))) score += 8;
    if (page.startsWith("how_to/") || page.startsWith("get_started/")) score += 4;
    if (page.startsWith("understand/")) score += 2;
    if (page.startsWith("generated/")) score -= 6;
    return score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};

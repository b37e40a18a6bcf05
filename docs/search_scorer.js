// Titles first, and pages that people read before the members of the API.
var Scorer = {
  score: ([page, , anchor, , score, , kind]) => {
    if (page.startsWith("how_to/") || page.startsWith("get_started/")) score += 4;
    if (page.startsWith("understand/")) score += 2;
    if (page.startsWith("generated/")) score -= 6;
    if (page.includes("execution_times")) score -= 50;
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

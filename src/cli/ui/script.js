// Makes the page follow the cluster. Nothing needs it: without it each page is as it was when it was asked for.
'use strict';
(() => {
  const $ = (id) => document.getElementById(id);
  const live = $('live');

  // Copy buttons.
  for (const button of document.querySelectorAll('[data-copy]')) {
    button.hidden = !navigator.clipboard;
    button.addEventListener('click', async () => {
      const words = button.textContent;
      try {
        await navigator.clipboard.writeText($(button.dataset.copy).textContent);
        button.textContent = 'Copied';
      } catch {
        button.textContent = 'Not allowed';
      }
      setTimeout(() => { button.textContent = words; }, 1500);
    });
  }

  // Menus close when something else is meant.
  const close = (but) => {
    for (const menu of document.querySelectorAll('details.menu[open]')) if (menu !== but) menu.open = false;
  };
  document.addEventListener('click', (event) => close(event.target.closest('details.menu')));
  document.addEventListener('keydown', (event) => {
    const menu = event.key === 'Escape' && document.activeElement?.closest('details.menu[open]');
    if (menu) {
      menu.open = false;
      menu.querySelector('summary').focus();
    }
  });

  // A row that is as it was stays in place, with its open menu and its focus; only its times are told anew.
  const rows = (part, fresh) => {
    const known = new Map([...part.children].map((row) => [row.id, row]));
    const focused = part.contains(document.activeElement) ? document.activeElement.id : '';
    let next = part.firstElementChild;
    for (const row of [...fresh.children]) {
      const old = known.get(row.id);
      known.delete(row.id);
      if (old && old.dataset.revision === row.dataset.revision) {
        const times = row.querySelectorAll('time');
        old.querySelectorAll('time').forEach((time, i) => { if (times[i]) time.textContent = times[i].textContent; });
        if (old === next) next = next.nextElementSibling;
        else part.insertBefore(old, next);
        continue;
      }
      if (old?.querySelector('details.menu[open]')) row.querySelector('details.menu').open = true;
      row.classList.add('fresh');
      if (old === next && next) next = next.nextElementSibling;
      old?.remove();
      part.insertBefore(row, next);
    }
    for (const row of known.values()) row.remove();
    if (focused && document.activeElement?.id !== focused) $(focused)?.focus();
  };

  const patch = (part, fresh) => {
    if (part.dataset.part === 'rows') return rows(part, fresh);
    if (part.innerHTML === fresh.innerHTML) return undefined;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const index = focused ? [...part.querySelectorAll('a')].indexOf(focused) : -1;
    part.replaceChildren(...fresh.childNodes);
    part.querySelectorAll('a')[index]?.focus();
    return undefined;
  };

  const say = (state, words) => {
    if (!live) return;
    live.className = live.className.replace(/ (on|off)\b/g, '') + ' ' + state;
    live.textContent = words;
  };

  let busy = false;
  let again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { cache: 'no-store' });
      if (answer.status === 404 || answer.status === 401) { location.reload(); return; }
      if (!answer.ok) { say('off', "The cluster doesn't answer; this may be old"); return; }
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
      for (const part of document.querySelectorAll('[data-part]')) {
        const other = fresh.getElementById(part.id);
        if (other) patch(part, other);
      }
      const said = fresh.getElementById('live')?.textContent ?? '';
      if (said === 'As of now') say('on', 'Live'); else say('off', said);
    } catch {
      say('off', 'Not connected: does the command still run?');
    } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  };

  // A browser has six connections for one host: a tab that nobody looks at gives its one back. The first word of a new
  // connection tells what was missed.
  let source;
  const listen = () => {
    if (document.hidden) {
      source?.close();
      source = undefined;
    } else if (!source) {
      source = new EventSource(live.dataset.live);
      source.addEventListener('changed', refresh);
      source.addEventListener('error', () => say('off', 'Not connected: does the command still run?'));
    }
  };
  if (live) {
    document.addEventListener('visibilitychange', listen);
    listen();
  }

  // The filter acts while one types.
  const filter = document.querySelector('[data-filter]');
  if (filter) {
    let timer;
    filter.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        const query = new URLSearchParams([...new FormData(filter)].filter(([, value]) => value));
        history.replaceState(null, '', '/?' + query);
        refresh();
      }, 200);
    });
  }
})();

// What the user chose to see: the section, the filter, the order, and what is open. It survives a reload of the tab.

const key = 'osx-builder-view';
const defaults = { filter: '', search: '', sort: 'created', reverse: false, open: [], consoles: [] };

// view has only the fields of defaults. Call saveView after a change.
export const view = { ...defaults, ...read() };

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

export const saveView = () => sessionStorage.setItem(key, JSON.stringify(view));

// setMember adds a machine's ID to one of view's lists, or removes it.
export function setMember(list, id, present) {
  if (view[list].includes(id) === present) return;
  view[list] = present ? [...view[list], id] : view[list].filter((other) => other !== id);
  saveView();
}

// currentRoute returns the section in the address, and the machine if the section is one machine. The daemon serves one
// document, so that sections are fragments: #/machines, #/machines/ID, #/images and #/host.
export function currentRoute() {
  const [, section, id] = /^#\/(machines|images|host)(?:\/([^/]+))?$/.exec(location.hash) ?? [];
  return { section: section ?? 'machines', id: section === 'machines' && id ? decodeURIComponent(id) : '' };
}

// isNamed reports whether the address of a machine is the address of the machine with this document.
export const isNamed = (doc, id) => id !== '' && (doc.id === id || doc.name === id);

export const machineLink = (id) => `#/machines/${encodeURIComponent(id)}`;
